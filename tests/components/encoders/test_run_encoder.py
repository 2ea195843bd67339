"""The encoder of an earlier run: the same vectors, a key that follows the heads, and a copy that needs no one else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from genret.api import FitContext, Pairs, Silent
from genret.components.encoders.earlier.run import RunEncoder, runs_folder
from genret.components.encoders.paired import PairedEncoder
from genret.components.encoders.second.two_space import TwoSpaceEncoder
from genret.errors import GenretError

EYES = {"type": "timm", "model": "test_resnet", "pretrained": False, "image_size": 32, "bf16": False}


def options(dim: int = 8) -> dict[str, Any]:
    return {"image": EYES, "dim": dim, "hidden": 0, "train": {"epochs": 1}}


def trained(run: Path, seed: int = 0) -> PairedEncoder:
    """A run of which only the encoder is there."""
    encoder = PairedEncoder(PairedEncoder.Config(**options()))
    random = torch.Generator().manual_seed(seed)
    pairs = Pairs(torch.randn(6, 1, 12, generator=random), torch.randn(6, 5, generator=random), torch.arange(6))
    encoder.fit(pairs, pairs, FitContext(seed, torch.device("cpu"), run, Silent().progress, lambda row: None))
    (run / "encoder").mkdir(parents=True)
    encoder.save(run / "encoder")
    facts = {"options": {"encoder": {"type": "paired", **options()}}}
    (run / "encoder" / "stage.json").write_text(json.dumps(facts))
    (run / "summary.json").write_text("{}")
    return encoder


def taken(run: Path | str, home: Path | None = None) -> RunEncoder:
    def resolve(name: str) -> str:
        return str(runs_folder((home or Path("/nowhere")) / "weights")) if name == "genret:runs" else name

    return RunEncoder(RunEncoder.Config(run=str(run)), resolve_weights=resolve)


def test_it_is_the_earlier_encoder(tmp_path: Path) -> None:
    encoder = trained(tmp_path / "runs" / "first")
    by_name, by_folder = taken("first", tmp_path), taken(tmp_path / "runs" / "first")
    images, texts = torch.randn(3, 12), torch.randn(4, 5)
    for one in (by_name, by_folder):
        assert torch.equal(one.project_images(images), encoder.project_images(images))
        assert torch.equal(one.project_texts(texts), encoder.project_texts(texts))
        assert one.tower_key("image") == encoder.tower_key("image"), "cached vectors of images serve both"
    picture = [Image.new("RGB", (32, 32), "red")]
    assert by_name.image_features(picture).shape == encoder.image_features(picture).shape


def test_of_two_spaces_it_is_the_compared_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PairedEncoder, "text_features", lambda self, texts: torch.ones(len(texts), 5))
    both = TwoSpaceEncoder(TwoSpaceEncoder.Config(**options()))
    pairs = Pairs(torch.randn(6, 1, 12), torch.randn(6, 5 + 5), torch.arange(6))
    both.fit(pairs, pairs, FitContext(0, torch.device("cpu"), tmp_path, Silent().progress, lambda row: None))
    both.save(tmp_path / "run" / "encoder")
    plain = {"type": "two-space", **both.config.model_dump(mode="json")}
    (tmp_path / "run" / "encoder" / "stage.json").write_text(json.dumps({"options": {"encoder": plain}}))
    (tmp_path / "run" / "summary.json").write_text("{}")
    texts = torch.randn(4, 5)
    assert torch.equal(taken(tmp_path / "run").project_texts(texts), both.compared.project_texts(texts))


def test_the_key_follows_the_heads_and_not_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PairedEncoder, "tower_key", lambda self, modality: modality)
    trained(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    trained(tmp_path / "other", seed=1)
    one, copy, other = (taken(tmp_path / name).tower_key("text") for name in ("one", "copy", "other"))
    assert one == copy != other


def test_what_is_saved_needs_no_earlier_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PairedEncoder, "tower_key", lambda self, modality: modality)
    encoder = trained(tmp_path / "first")
    new = taken(tmp_path / "first")
    folder = tmp_path / "second" / "encoder"
    folder.mkdir(parents=True)
    new.save(folder)
    (folder / "stage.json").write_text('{"options": {"encoder": {"type": "run", "run": "first"}}}')
    (tmp_path / "second" / "summary.json").write_text("{}")
    key = new.tower_key("text")
    shutil.rmtree(tmp_path / "first")
    loaded = taken(tmp_path / "first")
    loaded.load(folder)
    texts = torch.randn(4, 5)
    assert torch.equal(loaded.project_texts(texts), encoder.project_texts(texts)) and loaded.tower_key("text") == key
    third = taken(tmp_path / "second")
    assert torch.equal(third.project_texts(texts), encoder.project_texts(texts)), "and can be taken over again"
    assert third.tower_key("text") == key


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"options": {"encoder": {"type": "world"}}}, "cannot be taken over"),
        ({"options": {"encoder": {"type": "paired", "dimm": 3}}}, "cannot be used"),
        ({"options": {}}, "does not say which encoder"),
        ([], "does not say which encoder"),
    ],
)
def test_runs_that_cannot_be_used(tmp_path: Path, facts: Any, said: str) -> None:
    run = tmp_path / "first"
    trained(run)
    (run / "encoder" / "stage.json").write_text(json.dumps(facts))
    with pytest.raises(GenretError, match=said):
        _ = taken(run).inner
    with pytest.raises(GenretError, match="no finished run 'gone'"):
        _ = taken("gone", tmp_path).inner
