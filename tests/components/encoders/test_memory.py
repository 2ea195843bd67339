"""The memory of the training images: kernel regression against loops, and what it does to an encoder's vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genret.api import FitContext, Pairs, Silent
from genret.components.encoders.heads import Memory
from genret.components.encoders.paired import PairedEncoder
from genret.errors import GenretError


@pytest.fixture
def context(tmp_path: Path) -> Callable[[str], FitContext]:
    return lambda name: FitContext(0, torch.device("cpu"), tmp_path / name, Silent().progress, lambda row: None)


def units(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def pairs(count: int, captions: int, seed: int) -> Pairs:
    """Pictures and captions that show a hidden vector each through its own random map, plus noise."""
    maps = torch.Generator().manual_seed(99)
    to_image, to_text = torch.randn(8, 24, generator=maps), torch.randn(8, 20, generator=maps)
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, 8, generator=generator)
    owners = torch.arange(count).repeat_interleave(captions)
    images = (hidden @ to_image)[:, None] + 0.3 * torch.randn(count, 2, 24, generator=generator)
    return Pairs(images, hidden[owners] @ to_text + 0.3 * torch.randn(len(owners), 20, generator=generator), owners)


def encoder(**options: Any) -> PairedEncoder:
    train = {"epochs": 4, "batch_size": 64, "lr": 3e-3, "patience": 0}
    return PairedEncoder(PairedEncoder.Config(dim=16, hidden=32, views=2, train=train, **options))


def test_recalled_is_the_weighted_mean_of_what_is_alike() -> None:
    memory = Memory(units(7, 4), units(7, 5, seed=1))
    like = units(600, 5, seed=2)  # more than are compared at a time
    found = memory.recalled(like, memory.captions, 0.1)
    for row in (0, 1, 255, 256, 599):
        weights = [math.exp(float(like[row] @ caption) / 0.1) for caption in memory.captions]
        mean = sum((w / sum(weights) * image for w, image in zip(weights, memory.images, strict=True)), torch.zeros(4))
        torch.testing.assert_close(found[row], mean / mean.norm(), rtol=1e-4, atol=1e-5)
    assert memory.recalled(like[:0], memory.captions, 0.1).shape == (0, 4)


def test_an_image_is_known_by_the_mean_of_its_captions() -> None:
    images, texts = units(3, 4), 5 * units(4, 6, seed=1)  # lengths of captions' vectors do not count
    memory = Memory.of(images, texts, torch.tensor([2, 0, 2, 2]))
    assert torch.equal(memory.images, images[[0, 2]]), "an image without captions is no answer to a text"
    unit = F.normalize(texts, dim=-1)
    torch.testing.assert_close(memory.captions[0], unit[1])
    torch.testing.assert_close(memory.captions[1], F.normalize(unit[[0, 2, 3]].sum(0), dim=0))


def test_vectors_are_drawn_towards_training_images(context: Callable[[str], FitContext], tmp_path: Path) -> None:
    train, dev = pairs(100, 2, 1), pairs(40, 1, 2)
    plain, drawn = encoder(), encoder(memory={"weight": 2.0, "image_temperature": 0.1, "text_temperature": 0.2})
    for name, one in (("plain", plain), ("drawn", drawn)):
        one.fit(train, dev, context(name))
    images, texts = plain.project_images(dev.images[:, 0]), plain.project_texts(dev.texts)
    assert plain.memory is None
    memory = Memory.of(plain.project_images(train.images[:, 0]), train.texts, train.owners)
    alike = F.normalize(dev.texts, dim=-1)
    wanted = [
        F.normalize(images + 2 * memory.recalled(images, memory.images, 0.1), dim=-1),
        F.normalize(texts + 2 * memory.recalled(alike, memory.captions, 0.2), dim=-1),
    ]
    found = [drawn.project_images(dev.images[:, 0]), drawn.project_texts(dev.texts)]
    torch.testing.assert_close(found, wanted)
    drawn.save(tmp_path / "saved")
    again = encoder(memory={"weight": 2.0, "image_temperature": 0.1, "text_temperature": 0.2})
    again.load(tmp_path / "saved")
    assert torch.equal(again.project_images(dev.images[:, 0]), found[0])
    assert torch.equal(again.project_texts(dev.texts), found[1])
    again.to(torch.device("meta"))
    assert again.memory is not None and all(part.is_meta for part in again.memory), "it moves with the heads"


def test_heads_without_a_memory_that_the_recipe_wants(context: Callable[[str], FitContext], tmp_path: Path) -> None:
    plain = encoder()
    plain.fit(pairs(20, 1, 1), pairs(10, 1, 2), context("plain"))
    plain.save(tmp_path / "saved")
    with pytest.raises(GenretError, match="heads of the encoder"):
        encoder(memory={}).load(tmp_path / "saved")


def test_heads_learn_the_first_captions_alone(context: Callable[[str], FitContext]) -> None:
    """As they do from a data set that has no others, whatever the others say; the memory knows all."""
    few, dev = pairs(60, 1, 1), pairs(30, 1, 2)
    order = torch.tensor([place for image in range(60) for place in (image, 60 + image)])
    texts = torch.cat([few.texts, units(60, 20, seed=3)])[order]
    many = Pairs(few.images, texts, few.owners.repeat_interleave(2))
    encoders = [encoder(), encoder(captions=1), encoder(captions=1, memory={})]
    for place, (one, train) in enumerate(zip(encoders, (few, many, many), strict=True)):
        one.fit(train, dev, context(str(place)))
    one, same, recalling = encoders
    assert torch.equal(one.project_texts(dev.texts), same.project_texts(dev.texts))
    assert torch.equal(one.project_images(dev.images[:, 0]), same.project_images(dev.images[:, 0]))
    assert recalling.memory is not None and len(recalling.memory.images) == 60
    expected = F.normalize(F.normalize(texts, dim=-1).view(60, 2, -1).sum(1), dim=-1)
    torch.testing.assert_close(recalling.memory.captions, expected)
