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
from genret.components.encoders.heads import info_nce, next_of_group
from genret.components.encoders.paired import PairedEncoder
from genret.components.encoders.recall.likeness import CROWDING, NEAREST, RIDGE, crowding, likeness
from genret.components.encoders.recall.memory import Memory, MemoryOptions, caption_means
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


OPTIONS = MemoryOptions(weight=2.0, words=0.5, image_temperature=0.1, text_temperature=0.2)


def remembered(count: int = 40, words: float = 0.5) -> tuple[Memory, Tensor]:
    """A memory of pairs of pictures of the same thing, and their features."""
    features = torch.randn(count, 12, generator=torch.Generator().manual_seed(5))
    shown = torch.arange(count) // 2
    return Memory.of(units(count, 6), features, units(count, 9, seed=1), shown, words), features


def unit(rows: Tensor) -> Tensor:
    return F.normalize(rows, dim=-1)


def test_a_picture_is_drawn_towards_what_it_is_like_and_gets_its_words() -> None:
    memory, _ = remembered()
    vectors, features = units(600, 6, seed=2), units(600, 12, seed=3)  # more than are compared at a time
    found = memory.image(vectors, features, OPTIONS)
    for row in (0, 255, 256, 599):
        seen = features[row] @ memory.likeness
        key = torch.cat([vectors[row], seen / seen.norm()]) / math.sqrt(2)
        rivals = [
            (float(key @ other) - CROWDING * float(crowd)) / 0.1
            for other, crowd in zip(memory.keys, memory.crowding, strict=True)
        ]
        weights = [math.exp(rival) for rival in rivals]
        image = sum((w * one for w, one in zip(weights, memory.images, strict=True)), torch.zeros(6))
        words = sum((w * one for w, one in zip(weights, memory.captions, strict=True)), torch.zeros(9))
        halves = [unit(vectors[row] + 2 * unit(image)), 0.5 * unit(unit(words) - memory.captions.mean(0))]
        torch.testing.assert_close(found[row], unit(torch.cat(halves) @ memory.basis), rtol=1e-4, atol=1e-5)
    assert memory.image(vectors[:0], features[:0], OPTIONS).shape == (0, 6)


def test_a_text_is_drawn_towards_pictures_of_like_captions_and_keeps_its_words() -> None:
    memory, _ = remembered()
    vectors, read = units(300, 6, seed=2), units(300, 9, seed=3)
    found = memory.text(vectors, read, OPTIONS)
    for row in (0, 255, 256, 299):
        weights = [math.exp(float(read[row] @ caption) / 0.2) for caption in memory.captions]
        image = sum((w * one for w, one in zip(weights, memory.images, strict=True)), torch.zeros(6))
        halves = [unit(vectors[row] + 2 * unit(image)), 0.5 * unit(read[row] - memory.captions.mean(0))]
        torch.testing.assert_close(found[row], unit(torch.cat(halves) @ memory.basis), rtol=1e-4, atol=1e-5)
    assert memory.text(vectors[:0], read[:0], OPTIONS).shape == (0, 6)


def test_the_shared_space_keeps_what_tells_pictures_apart() -> None:
    """No other space of as many dimensions loses less of the training images (Eckart and Young)."""
    memory, _ = remembered()
    whole = torch.cat([memory.images, 0.5 * unit(memory.captions - memory.captions.mean(0))], 1)
    torch.testing.assert_close(memory.basis.T @ memory.basis, torch.eye(6), rtol=0, atol=1e-5)
    lost = (whole - whole @ memory.basis @ memory.basis.T).square().sum()
    torch.testing.assert_close(lost, torch.linalg.svdvals(whole)[6:].square().sum())


def test_without_the_texts_own_space_only_images_are_recalled() -> None:
    memory, features = remembered(words=0.0)
    options = MemoryOptions(words=0.0)
    vectors, read = units(5, 6, seed=2), units(5, 9, seed=3)
    shares = ((read @ memory.captions.T) / options.text_temperature).softmax(1)
    plain = unit(vectors + unit(shares @ memory.images))
    found = memory.text(vectors, read, options)
    torch.testing.assert_close(found @ found.T, plain @ plain.T, rtol=1e-4, atol=1e-4)
    assert torch.isfinite(memory.image(vectors, features[:5], options)).all()


def test_likeness_ignores_what_varies_among_pictures_of_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    things, style = torch.randn(200, 9, generator=generator), 3 * torch.randn(400, 3, generator=generator)
    features = torch.cat([things.repeat_interleave(2, 0), style], 1)
    classes = torch.arange(200).repeat_interleave(2)
    seen = unit(features @ likeness(features, classes))
    nearest = (seen @ seen.T - 2 * torch.eye(400)).argmax(1)
    raw = unit(features)
    before = (raw @ raw.T - 2 * torch.eye(400)).argmax(1)
    right = [float((classes[found] == classes).float().mean()) for found in (before, nearest)]
    assert right[0] < 0.5 and right[1] > 0.9, right
    within = (features[::2] - features[1::2]) / 2
    spread = (within @ likeness(features, classes)).square().mean(0)
    assert spread.max() <= 1 / (1 - RIDGE) and spread.min() >= 0, "at most one in every direction"
    assert likeness(features, torch.arange(400)).shape == (12, 0), "nothing to learn from"


def test_crowding_is_the_mean_similarity_of_the_nearest_others() -> None:
    keys = units(1100, 8)  # more than are compared at a time
    wanted = [sorted((keys[row] @ keys.T).tolist())[-1 - NEAREST : -1] for row in (0, 1023, 1024, 1099)]
    torch.testing.assert_close(
        crowding(keys)[[0, 1023, 1024, 1099]],
        torch.tensor([sum(row) / NEAREST for row in wanted]),
        rtol=1e-4,
        atol=1e-5,
    )
    assert crowding(keys[:1]).tolist() == [0.0]
    torch.testing.assert_close(crowding(keys[:2]), (keys[0] @ keys[1]).expand(2))


def test_names_count_as_much_as_all_other_captions_together() -> None:
    texts = 5 * units(5, 6, seed=1)  # lengths of captions' vectors do not count
    found = caption_means(texts, torch.tensor([2, 0, 2, 2, 2]), 3, torch.tensor([0, 1]))
    assert not found[1].any(), "without captions"
    one = unit(texts)
    torch.testing.assert_close(found[0], one[1])
    torch.testing.assert_close(found[2], unit(one[0] + unit(one[2] + one[3] + one[4])))
    everything = caption_means(texts, torch.tensor([2, 0, 2, 2, 2]), 3, torch.arange(5))
    torch.testing.assert_close(everything[2], unit(one[[0, 2, 3, 4]].sum(0)))


def test_an_image_without_captions_is_no_answer_to_a_text() -> None:
    captions = units(4, 9)
    captions[2] = 0
    memory = Memory.of(units(4, 6), torch.randn(4, 12), captions, torch.tensor([0, 0, -1, 1]), 1.0)
    assert torch.equal(memory.images, units(4, 6)[[0, 1, 3]]) and len(memory.keys) == len(memory.crowding) == 3


def test_an_encoder_uses_its_memory_and_keeps_it(context: Callable[[str], FitContext], tmp_path: Path) -> None:
    train, dev = pairs(100, 2, 1), pairs(40, 1, 2)
    options = {"weight": 2.0, "words": 0.5, "image_temperature": 0.1, "text_temperature": 0.2}
    plain, drawn = encoder(), encoder(memory=options)
    for name, one in (("plain", plain), ("drawn", drawn)):
        one.fit(train, dev, context(name))
    assert plain.memory is None and plain.heads is not None
    images, texts = plain.project_images(dev.images[:, 0]), plain.project_texts(dev.texts)
    look = plain.heads.image.standardized
    captions = caption_means(train.texts, train.owners, 100, torch.arange(200))
    memory = Memory.of(
        plain.project_images(train.images[:, 0]), look(train.images[:, 0]), captions, torch.arange(100), 0.5
    )
    wanted = [memory.image(images, look(dev.images[:, 0]), OPTIONS), memory.text(texts, unit(dev.texts), OPTIONS)]
    found = [drawn.project_images(dev.images[:, 0]), drawn.project_texts(dev.texts)]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    drawn.save(tmp_path / "saved")
    again = encoder(memory=options)
    again.load(tmp_path / "saved")
    assert torch.equal(again.project_images(dev.images[:, 0]), found[0])
    assert torch.equal(again.project_texts(dev.texts), found[1])
    again.to(torch.device("meta"))
    assert again.memory is not None and all(part.is_meta for part in again.memory), "it moves with the heads"


def test_pictures_of_the_same_caption_come_to_lie_together(context: Callable[[str], FitContext]) -> None:
    few, dev = pairs(60, 1, 1), pairs(30, 1, 2)
    drawings = torch.cat([few.images, few.images + torch.randn(few.images.shape, generator=torch.Generator())])
    both = Pairs(drawings, few.texts.repeat(2, 1), torch.arange(120))
    nearness = []
    for name, weight in (("plain", 0.0), ("alike", 5.0)):
        train = {"epochs": 8, "batch_size": 64, "lr": 3e-3, "patience": 0, "alike": weight}
        one = PairedEncoder(PairedEncoder.Config(dim=16, hidden=32, views=2, train=train))
        one.fit(both, dev, context(name))
        vectors = one.project_images(drawings[:, 0])
        nearness.append(-float(info_nce(vectors[:60], vectors[60:], torch.eye(60, dtype=torch.bool), torch.tensor(10))))
    assert nearness[1] > nearness[0]


def test_the_next_of_a_group_comes_round() -> None:
    groups = torch.tensor([3, 1, 3, 0, 3, 1])
    assert next_of_group(groups).tolist() == [2, 5, 4, 3, 0, 1]
    assert next_of_group(groups[:0]).tolist() == []


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
    expected = caption_means(texts, many.owners, 60, torch.arange(0, 120, 2))
    torch.testing.assert_close(recalling.memory.captions, expected)
