"""Heads: the loss against its formula, training against chance, and what is saved against what was trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from genret.api import FitContext, Pairs, Silent
from genret.components.encoders.heads import caption_groups, info_nce, text_to_image_recall
from genret.components.encoders.paired import PairedEncoder
from genret.errors import GenretError


def units(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_info_nce_is_clips_loss_without_other_positives() -> None:
    v, t = units(6, 4), units(6, 4, seed=1)
    logits = 10 * v @ t.T
    target = torch.arange(6)
    reference = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(info_nce(v, t, torch.eye(6, dtype=torch.bool), torch.tensor(10.0)), reference)


def test_info_nce_with_several_positives_against_loops() -> None:
    v, t = units(5, 4), units(5, 4, seed=1)
    same = torch.eye(5, dtype=torch.bool)
    same[0, 3] = same[3, 0] = True
    total = 0.0
    for a, b in ((v, t), (t, v)):
        for i in range(5):
            weights = [math.exp(7 * float(a[i] @ b[j])) for j in range(5)]
            positives = [j for j in range(5) if same[i, j]]
            total -= sum(math.log(weights[j] / sum(weights)) for j in positives) / len(positives) / 5
    torch.testing.assert_close(float(info_nce(v, t, same, torch.tensor(7.0))), total / 2)


def test_caption_groups() -> None:
    texts = units(5, 8)[[0, 1, 0, 2, 1, 3, 4, 0]]
    groups = caption_groups(texts)
    assert torch.equal(groups[:, None] == groups, (texts[:, None] == texts).all(-1))


def test_recall_against_sorting_and_ties() -> None:
    images, texts = units(30, 6), units(50, 6, seed=1)
    owners = torch.randint(30, (50,), generator=torch.Generator().manual_seed(2))
    order = (texts @ images.T).argsort(1, descending=True)
    reference = [float((order[:, :k] == owners[:, None]).any(1).float().mean()) for k in (1, 5, 10)]
    assert text_to_image_recall(images, texts, owners) == pytest.approx(reference)
    assert text_to_image_recall(torch.ones(30, 6), texts, owners) == [0, 0, 0]  # a collapsed space finds nothing


# ---------------------------------------------------------------------------------------------------- fitting
@pytest.fixture
def context(tmp_path: Path) -> Callable[..., FitContext]:
    def make(name: str = "run", seed: int = 0) -> FitContext:
        return FitContext(seed, torch.device("cpu"), tmp_path / name, Silent().progress, lambda row: None)

    return make


def paired_vectors(count: int, seed: int) -> Pairs:
    """Pictures and captions that show a hidden vector each through its own random map, plus noise."""
    maps = torch.Generator().manual_seed(99)
    to_image, to_text = torch.randn(8, 24, generator=maps), torch.randn(8, 20, generator=maps)
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, 8, generator=generator)
    images = (hidden @ to_image)[:, None] + 0.3 * torch.randn(count, 2, 24, generator=generator)
    owners = torch.arange(count).repeat(2)
    texts = hidden[owners] @ to_text + 0.3 * torch.randn(2 * count, 20, generator=generator)
    return Pairs(images, texts, owners)


def small(**options: Any) -> PairedEncoder:
    train = {"epochs": 8, "batch_size": 64, "lr": 3e-3, "patience": 0} | options.pop("train", {})
    return PairedEncoder(PairedEncoder.Config(dim=16, hidden=32, views=2, train=train, **options))


def test_fit_beats_chance_and_is_reproducible(context: Callable[..., FitContext], tmp_path: Path) -> None:
    train, dev = paired_vectors(300, 1), paired_vectors(100, 2)
    encoders = [small(), small(), small()]
    for i, encoder in enumerate(encoders):
        encoder.fit(train, dev, context(str(i), seed=i // 2))
    vectors = [(e.project_images(dev.images[:, 0]), e.project_texts(dev.texts)) for e in encoders]
    recall = text_to_image_recall(*vectors[0], dev.owners)
    assert recall[0] > 0.3 and recall[2] > 0.8  # chance: 0.01 and 0.1
    assert all(torch.equal(a, b) for a, b in zip(vectors[0], vectors[1], strict=True))
    assert not torch.equal(vectors[0][0], vectors[2][0])
    for side in vectors[0]:
        torch.testing.assert_close(side.norm(dim=1), torch.ones(len(side)))
    encoders[0].save(tmp_path / "saved")
    fresh = small()
    with pytest.raises(GenretError, match="not trained"):
        fresh.project_texts(dev.texts)
    fresh.load(tmp_path / "saved")
    assert torch.equal(fresh.project_images(dev.images[:, 0]), vectors[0][0])
    assert torch.equal(fresh.project_texts(dev.texts), vectors[0][1])
    assert fresh.project_texts(dev.texts[:0]).shape == (0, 16)


def test_the_best_weights_win(context: Callable[..., FitContext]) -> None:
    train, dev = paired_vectors(200, 1), paired_vectors(80, 2)
    rows: list[dict[str, Any]] = []
    encoder = small(train={"epochs": 30, "patience": 2, "lr": 0.02})
    encoder.fit(train, dev, context()._replace(log=rows.append))
    looks = [row["dev"] for row in rows]
    recalls = text_to_image_recall(
        encoder.project_images(dev.images[:, 0]), encoder.project_texts(dev.texts), dev.owners
    )
    assert len(looks) < 30 and looks.index(max(looks)) == len(looks) - 3
    assert 100 * sum(recalls) / 3 == pytest.approx(max(looks))


def test_without_a_development_split(context: Callable[..., FitContext]) -> None:
    train = paired_vectors(40, 1)
    nothing = Pairs(train.images[:0], train.texts[:0], train.owners[:0])
    encoder = small(train={"epochs": 1})
    encoder.fit(train, nothing, context())
    with pytest.raises(GenretError, match="captioned training images"):
        small().fit(nothing, nothing, context())
    assert encoder.project_texts(train.texts).isfinite().all()


def test_constant_dimensions_do_no_harm(context: Callable[..., FitContext]) -> None:
    train = paired_vectors(40, 1)
    train.images[:, :, 3] = 5.0
    encoder = small(train={"epochs": 1})
    encoder.fit(train, train, context())
    moved = train.images[:, 0].clone()
    moved[:, 3] += 1e-6
    torch.testing.assert_close(
        encoder.project_images(moved), encoder.project_images(train.images[:, 0]), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("damage", ["missing", "text", "weights", "other dim"])
def test_damaged_heads(damage: str, context: Callable[..., FitContext], tmp_path: Path) -> None:
    train = paired_vectors(10, 1)
    encoder = small(train={"epochs": 0})
    encoder.fit(train, train, context())
    folder = tmp_path / "heads"
    encoder.save(folder)
    if damage == "missing":
        (folder / "heads.json").unlink()
    elif damage == "text":
        (folder / "heads.json").write_text("{")
    elif damage == "weights":
        (folder / "heads.safetensors").write_bytes(b"\x00" * 40)
    else:
        encoder = PairedEncoder(PairedEncoder.Config(dim=32))
    with pytest.raises(GenretError, match="heads"):
        encoder.load(folder)


# ---------------------------------------------------------------------------------------------------- towers
def test_pictures_texts_and_views(bert_folder: Path, pictures: list[Image.Image], texts: list[str]) -> None:
    def encoder(**augment: Any) -> PairedEncoder:
        image = {"type": "timm", "model": "test_resnet", "pretrained": False, "image_size": 64, "resize": "squash"}
        text = {"type": "sentence", "model": str(bert_folder)}
        return PairedEncoder(PairedEncoder.Config(image=image, text=text, views=3, augment=augment))

    one, other = encoder(), encoder(seed=5)
    assert one.num_views == 3 and one.text_features(texts).shape == (4, 16)
    views = [one.image_features(pictures, view) for view in range(3)]
    assert torch.equal(views[1], one.image_features(pictures, 1))
    assert not torch.allclose(views[0], views[1]) and not torch.allclose(views[1], views[2])
    assert not torch.allclose(views[1], other.image_features(pictures, 1))
    assert one.tower_key("image") == other.tower_key("image") and one.view_key(0) == other.view_key(0)
    assert len({e.view_key(v) for e in (one, other) for v in (1, 2)}) == 4


def test_registered_weights_reach_both_towers(bert_folder: Path, texts: list[str]) -> None:
    config = PairedEncoder.Config(
        image={"type": "timm", "model": "test_resnet", "weights": "mine:eyes"},
        text={"type": "sentence", "model": "mine:words"},
    )
    encoder = PairedEncoder(config, resolve_weights=lambda name: {"mine:words": str(bert_folder)}.get(name, "/gone"))
    assert encoder.text_features(texts).shape == (4, 16)
    with pytest.raises(GenretError, match="/gone"):
        encoder.tower_key("image")
