"""An encoder that fine-tunes: a stage of its own, reused where nothing changed, in every copy of the run."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from genret.api import CaptionedImages, FitContext
from genret.catalog.place import run_id_of
from genret.catalog.store import Catalog
from genret.components.encoders.joint import TwoTowerEncoder

FINETUNE = "encoder.finetune={epochs: 1, batch_size: 8, last_layers: 2, lr: 0.001, bf16: false}"


@pytest.fixture(scope="module")
def home(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tmp_path_factory.mktemp("towers"))


@pytest.fixture(scope="module")
def train(tiny: Any, home: Path) -> Callable[..., tuple[Path, str]]:
    def run(name: str, *overrides: str, recipe: Path = tiny.recipe) -> tuple[Path, str]:
        words = [word for override in (FINETUNE, *overrides) for word in ("--set", override)]
        answer = tiny.genret("train", recipe, *words, "--run", home / name, home=home / "home")
        assert answer.code == 0, answer.err
        return home / name, answer.err

    return run


@pytest.fixture(scope="module")
def tuned(train: Callable[..., tuple[Path, str]]) -> Path:
    run, said = train("tuned")
    assert "towers: done" in said
    return run


def vectors(run: Path) -> torch.Tensor:
    with Catalog.open(run / "catalog.sqlite", run_id=run_id_of(run)) as catalog:
        return catalog.features_of(catalog.keys())


def test_the_towers_are_trained_kept_and_used(tiny: Any, tuned: Path, tmp_path: Path, home: Path) -> None:
    assert load_file(tuned / "towers" / "towers.safetensors")
    rows = [json.loads(line) for line in (tuned / "metrics.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows if row["stage"].startswith("towers")] == ["towers-space", "towers"]
    assert not torch.allclose(vectors(tuned), vectors(tiny.run))
    # a copy needs nothing of the home that it was trained in, neither to search nor to index
    copy = shutil.copytree(tuned, tmp_path / "copy")
    found = tiny.genret("search", "a red square on grey", "--run", copy, "--json", home=tmp_path / "empty")
    before = tiny.genret("search", "a red square on grey", "--run", tuned, "--json", home=home / "home")
    assert found.document["hits"] == before.document["hits"]
    again = shutil.copy(tiny.data / "01.png", tmp_path / "again.png")
    assert tiny.genret("index", again, "--run", copy, "--json", home=tmp_path / "empty").document["added"] == 1
    with Catalog.open(copy / "catalog.sqlite", run_id=run_id_of(copy)) as catalog:
        keys = catalog.keys()
        names = [row.image_id for row in catalog.lookup(keys)]
        features = dict(zip(names, catalog.features_of(keys), strict=True))
    torch.testing.assert_close(features[str(again)], features["01.png"], atol=2e-3, rtol=0)  # float16 in the cache


def test_a_run_without_its_towers_says_so(tiny: Any, tuned: Path, tmp_path: Path, failed: Callable[..., None]) -> None:
    copy = shutil.copytree(tuned, tmp_path / "copy")
    shutil.rmtree(copy / "towers")
    failed(tiny.genret("search", "a red square", "--run", copy), 1, "holds no fine-tuned towers", "--resume")


@pytest.mark.parametrize(
    ("change", "anew"),
    [
        ("backbone.d_ff=8", {"generator"}),
        ("encoder.dropout=0.1", {"encoder", "identifier", "targets", "generator"}),
        ("encoder.finetune.lr=0.002", {"towers", "encoder", "identifier", "targets", "generator"}),
    ],
)
def test_what_did_not_change_is_reused(
    change: str, anew: set[str], train: Callable[..., tuple[Path, str]], tuned: Path
) -> None:
    _, said = train(change.partition("=")[0], change)
    for stage in ("towers", "encoder", "identifier", "targets", "generator"):
        assert f"{stage}: {'done' if stage in anew else 'reused'}" in said


def test_damaged_towers_are_made_anew(train: Callable[..., tuple[Path, str]], tuned: Path, home: Path) -> None:
    (stored,) = {
        path for path in (home / "home").rglob("towers.safetensors") if path.samefile(tuned / "towers" / path.name)
    }
    good = stored.read_bytes()
    stored.unlink()  # the run's own is another link to the same file
    stored.write_bytes(good[:100])
    _, said = train("mended")
    assert "towers: what was stored cannot be used and is made anew" in said
    assert (home / "mended" / "towers" / "towers.safetensors").read_bytes() == good


def test_searched_pictures_train_no_towers(
    tiny: Any, train: Callable[..., tuple[Path, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures 00 (train) and 01 (test) become one picture; 03 is the development split's."""
    data = shutil.copytree(tiny.data, tmp_path / "data")
    for training, other in (("00.png", "01.png"), ("02.png", "03.png")):
        shutil.copy(data / other, data / training)
    with (data / "captions.csv").open() as stream:
        captions = {row["image"]: row["caption"] for row in csv.DictReader(stream)}
    seen: list[CaptionedImages] = []
    fit = TwoTowerEncoder.fit_towers

    def watched(self: TwoTowerEncoder, train: CaptionedImages, dev: CaptionedImages, context: FitContext) -> None:
        seen.append(train)
        fit(self, train, dev, context)

    monkeypatch.setattr(TwoTowerEncoder, "fit_towers", watched)
    recipe = tmp_path / "leaky.yaml"
    recipe.write_text(tiny.recipe.read_text().replace(str(tiny.data), str(data)))
    _, said = train("leaky", "retriever=two-tower", recipe=recipe)
    assert "1 training pictures are also in the split 'test'" in said
    assert len(seen[0].read) == 22 and not {captions["00.png"], captions["02.png"]} & set(seen[0].captions)
