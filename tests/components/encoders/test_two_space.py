"""two-space against two `paired` encoders that are fitted apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from genret.api import FitContext, Pairs, Silent
from genret.components.encoders.paired import PairedEncoder
from genret.components.encoders.second.two_space import TwoSpaceEncoder

OPTIONS: dict[str, Any] = {
    "dim": 16,
    "hidden": 32,
    "train": {"epochs": 3, "batch_size": 64, "patience": 0},
}


def pairs(count: int, seed: int) -> Pairs:
    generator = torch.Generator().manual_seed(seed)
    images, owners = torch.randn(count, 1, 24, generator=generator), torch.arange(count).repeat(2)
    return Pairs(images, torch.randn(2 * count, 20 + 12, generator=generator), owners)


def context(folder: Path) -> FitContext:
    return FitContext(0, torch.device("cpu"), folder, Silent().progress, lambda row: None)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text towers of 20 and 12 numbers and image towers of 14 and 10, by their options; no weights are read."""
    width = {"first": 20, "second": 12}
    monkeypatch.setattr(
        PairedEncoder, "text_features", lambda self, texts: torch.ones(len(texts), width[self.config.text.model])
    )
    seen = {"left": 14, "right": 10}
    monkeypatch.setattr(
        PairedEncoder,
        "image_features",
        lambda self, images, view=0: torch.full((len(images), seen[self.config.image.model]), float(view)),
    )


@pytest.fixture
def encoder(narrow: None, tmp_path: Path) -> TwoSpaceEncoder:
    texts = {"text": {"type": "sentence", "model": "first"}, "reader": {"type": "sentence", "model": "second"}}
    made = TwoSpaceEncoder(TwoSpaceEncoder.Config(**OPTIONS, **texts))
    made.fit(pairs(100, 1), pairs(30, 2), context(tmp_path))
    return made


def test_its_spaces_are_those_of_two_encoders(encoder: TwoSpaceEncoder, tmp_path: Path) -> None:
    train, dev = pairs(100, 1), pairs(30, 2)
    images, texts = dev.images[:, 0], dev.texts
    alone = []
    for name, columns in (("first", slice(20)), ("second", slice(None))):
        one = PairedEncoder(PairedEncoder.Config(**OPTIONS, text={"type": "sentence", "model": name}))
        one.fit(*(part._replace(texts=part.texts[:, columns].contiguous()) for part in (train, dev)), context(tmp_path))
        alone.append((one.project_images(images), one.project_texts(texts[:, columns])))
    (z, t), (z2, t2) = alone
    query = encoder.project_texts(texts)
    torch.testing.assert_close(encoder.project_images(images), torch.cat([z, z2], 1) / 2**0.5)
    torch.testing.assert_close(encoder.project_captions(texts), torch.cat([t, t2], 1) / 2**0.5)
    torch.testing.assert_close(query, torch.cat([t, torch.zeros_like(t)], 1))
    torch.testing.assert_close(query @ encoder.project_images(images).T, t @ z.T / 2**0.5)  # what search compares
    assert encoder.text_features(["a", "b"]).shape == (2, 32)


def test_the_second_space_may_see_by_a_tower_of_its_own(narrow: None, tmp_path: Path) -> None:
    names = {"text": {"type": "sentence", "model": "first"}, "reader": {"type": "sentence", "model": "second"}}
    names |= {"image": {"type": "timm", "model": "left"}, "reader_image": {"type": "timm", "model": "right"}}
    encoder = TwoSpaceEncoder(TwoSpaceEncoder.Config(**OPTIONS, **names))
    train, dev = pairs(100, 1), pairs(30, 2)
    encoder.fit(train, dev, context(tmp_path))
    expected = []
    for words, seen in ((slice(20), slice(14)), (slice(None), slice(14, None))):
        one = PairedEncoder(PairedEncoder.Config(**OPTIONS))
        part = [
            own._replace(images=own.images[..., seen].contiguous(), texts=own.texts[:, words].contiguous())
            for own in (train, dev)
        ]
        one.fit(*part, context(tmp_path / "alone"))
        expected.append(one.project_images(dev.images[:, 0, seen]) / 2**0.5)
    torch.testing.assert_close(encoder.project_images(dev.images[:, 0]), torch.cat(expected, 1))
    views = encoder.image_features([Image.new("RGB", (8, 8))] * 2, view=3)
    assert views.shape == (2, 24) and bool((views == 3).all()), "both towers see the same view"
    encoder.save(tmp_path / "saved")
    other = TwoSpaceEncoder(encoder.config)
    other.load(tmp_path / "saved")
    assert torch.equal(other.project_images(dev.images[:, 0]), encoder.project_images(dev.images[:, 0]))


def test_an_interrupted_fit_goes_on_with_each_spaces_own_heads(
    narrow: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("genret.kit.checkpoint.SECONDS", 0.0)  # a checkpoint at every chance
    texts = {"text": {"type": "sentence", "model": "first"}, "reader": {"type": "sentence", "model": "second"}}
    first, again = (TwoSpaceEncoder(TwoSpaceEncoder.Config(**OPTIONS, **texts)) for _ in range(2))
    for encoder in (first, again):
        encoder.fit(pairs(100, 1), pairs(30, 2), context(tmp_path))
    given = pairs(30, 2).texts
    assert torch.equal(first.project_captions(given), again.project_captions(given))


def test_saved_and_loaded_it_is_the_same(encoder: TwoSpaceEncoder, tmp_path: Path) -> None:
    dev = pairs(30, 2)
    encoder.save(tmp_path / "saved")
    other = TwoSpaceEncoder(encoder.config)
    other.load(tmp_path / "saved")
    for name, given in (("images", dev.images[:, 0]), ("texts", dev.texts), ("captions", dev.texts)):
        project = f"project_{name}"
        assert torch.equal(getattr(other, project)(given), getattr(encoder, project)(given))


def test_the_keys_of_both_text_towers_count(bert_folder: Path, clip_folder: Path) -> None:
    def key(**reader: str) -> str:
        config = TwoSpaceEncoder.Config(text={"type": "sentence", "model": str(bert_folder)}, reader=reader)
        return TwoSpaceEncoder(config).tower_key("text")

    assert key(type="sentence", model=str(bert_folder)) != key(type="clip", model=str(clip_folder))


def test_the_keys_of_both_image_towers_count() -> None:
    def key(side: int | None) -> str:
        image = {"type": "timm", "model": "test_resnet", "pretrained": False, "image_size": 32}
        other = None if side is None else image | {"image_size": side}
        return TwoSpaceEncoder(TwoSpaceEncoder.Config(image=image, reader_image=other)).tower_key("image")

    assert len({key(None), key(32), key(48)}) == 3
    assert key(None) == PairedEncoder(
        PairedEncoder.Config(image={"type": "timm", "model": "test_resnet", "pretrained": False, "image_size": 32})
    ).tower_key("image"), "one tower: its cached vectors serve"


def test_fine_tuning_is_refused() -> None:
    with pytest.raises(ValidationError, match="set `finetune` to null"):
        TwoSpaceEncoder.Config(finetune={"epochs": 1})


def test_a_query_is_read_by_the_compared_tower_alone(encoder: TwoSpaceEncoder) -> None:
    texts = ["a", "b"]
    assert encoder.query_features(texts).shape == (2, 20)
    whole = encoder.project_texts(encoder.text_features(texts))
    assert torch.equal(encoder.project_texts(encoder.query_features(texts)), whole)
