"""Through the command line: leaks are caught by name, and a search says when nothing matches."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genret.api import Silent
from genret.evaluate.metrics import Relevant
from genret.evaluate.queries import query_set
from genret.lab.confidence.evaluator import _without
from genret.plugin.loading import load_plugins
from genret.run import Run
from genret.settings import Settings


@pytest.fixture(scope="module")
def leaky(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """00 (train) is 01 (test) byte for byte, 02 (train) is 06 (test) pixel for pixel; 04 (train) bears 11's caption."""
    root = tmp_path_factory.mktemp("leaky")
    data = shutil.copytree(tiny.data, root / "data")
    shutil.copy(data / "01.png", data / "00.png")
    Image.open(data / "06.png").save(data / "02.png", compress_level=0)
    with (data / "captions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    of_11 = next(row["caption"] for row in rows if row["image"] == "11.png")
    leaked = of_11.upper() + " !"
    with (data / "captions.csv").open("w", newline="") as stream:
        table = csv.DictWriter(stream, rows[0].keys())
        table.writeheader()
        table.writerows(rows)
        table.writerow({"image": "04.png", "caption": leaked, "split": "train", "colour": "red"})
    recipe = root / "leaky.yaml"
    recipe.write_text(tiny.recipe.read_text().replace(str(tiny.data), str(data)))
    run = root / "run"
    answer = tiny.genret("train", recipe, "--run", run, "--set", "retriever=two-tower")
    assert answer.code == 0, answer.err
    return run, answer.err


def test_leaks_are_caught_by_name(tiny: Any, leaky: tuple[Path, str]) -> None:
    run, said = leaky
    said = " ".join(said.split())
    for how, name in (("byte for byte", "00.png is 01.png"), ("pixel for pixel", "02.png is 06.png")):
        assert f"1 training pictures are also in the split 'test', {how}; they are left out of training: {name}" in said
    assert "1 captions of split 'test' have the words of a training caption and stay" in said
    evaluation = tiny.genret("evaluate", "--run", run, "--json").document
    groups = {(group["kind"], group["other_split"]): group for group in evaluation["leakage"]["groups"]}
    (copied,) = groups["same-file", "train"]["examples"]
    assert (copied["other_image_id"], copied["image_id"], copied["left_out"]) == ("00.png", "01.png", True)
    (saved,) = groups["same-pixels", "train"]["examples"]
    assert (saved["other_image_id"], saved["image_id"], saved["left_out"]) == ("02.png", "06.png", True)
    (worded,) = groups["same-caption", "train"]["examples"]
    assert (worded["other_image_id"], worded["image_id"], worded["left_out"]) == ("04.png", "11.png", False)
    summary = json.loads((run / "summary.json").read_text())["evaluation"]
    assert summary["leakage"] == evaluation["leakage"]
    whole = json.loads((run / "leakage.json").read_text())
    assert {leak["kind"] for leak in whole["leaks"]} >= {"same-file", "same-pixels", "same-caption"}
    shown = " ".join(tiny.genret("evaluate", "--run", run).out.split())
    assert "inductive" in shown and "00.png is 01.png" in shown and "of 11.png, as of 04.png" in shown


def test_a_clean_data_set_has_no_copies(tiny: Any) -> None:
    groups = tiny.genret("evaluate", "--json").document["leakage"]["groups"]
    assert {group["kind"] for group in groups} <= {"near-duplicate"}, "random towers see alike what is not"


def test_all_measures_stand_beside_recall(tiny: Any) -> None:
    found = tiny.genret("evaluate", "--json").document
    searched = found["measures"]["searched"]
    assert searched["recall"] == found["recall"] == searched["true_recall"], "one image answers each query"
    assert found["measures"]["two_tower"]["recall"] == found["two_tower"]
    assert 0 < searched["mrr"] <= 1 and 0 < searched["ndcg_at_10"] <= 1 and searched["median_rank"] >= 1
    shown = tiny.genret("evaluate").out
    assert "identifier-level, collisions counted as hits" in shown and "median rank" in shown


# ------------------------------------------------------------------------------------------------ nothing matches
@pytest.fixture(params=["generative", "two-tower"])
def calibrated(request: pytest.FixtureRequest, tiny: Any, run: Path, leaky: tuple[Path, str], tmp_path: Path) -> Path:
    return run if request.param == "generative" else Path(shutil.copytree(leaky[0], tmp_path / "dense"))


def test_min_confidence(tiny: Any, calibrated: Path, failed: Any) -> None:
    """The development split's 16 queries are few, but enough to go through all of it."""
    stored = json.loads((calibrated / "confidence.json").read_text())
    assert stored["fitted"]["split"] == "dev" and stored["fitted"]["num_queries"] == 16
    told = tiny.genret("evaluate", "--run", calibrated, "--json").document["confidence"]
    assert 0 <= told["ece"] <= 1 and 0 <= told["auroc_no_answer"] <= 1 and told["fitted"]["split"] == "dev"
    ask = ("search", "a red square", "--run", calibrated)
    found = tiny.genret(*ask, "-k", 3, "--json").document
    assert 0 <= found["confidence"] <= 1 and len(found["hits"]) == 3
    barred = tiny.genret(*ask, "--min-confidence", 1, "--json").document
    assert barred["hits"] == [] and barred["confidence"] == pytest.approx(found["confidence"], abs=0.01)
    assert "confidence" not in tiny.genret(*ask).out, "off by too much on other images to be shown to people"
    said = tiny.genret(*ask, "--min-confidence", 1)
    assert said.code == 0 and said.out == "" and "Nothing matches: confidence 0." in said.err
    (calibrated / "confidence.json").unlink()
    assert tiny.genret(*ask, "--json").document["confidence"] is None
    failed(tiny.genret(*ask, "--min-confidence", 0.5), 2, "no calibrated confidence", "genret evaluate --calibrate")
    (calibrated / "confidence.json").write_text("{")
    failed(tiny.genret(*ask), 1, "confidence.json is damaged", "genret evaluate --calibrate")
    assert tiny.genret("evaluate", "--run", calibrated, "--calibrate").code == 0
    assert json.loads((calibrated / "confidence.json").read_text()) == stored


def test_left_out_is_as_if_never_indexed(tiny: Any) -> None:
    """A search without some images against one in a trie of the others, for every query another set."""
    settings = Settings(home=tiny.home, device="cpu", num_threads=1)
    retriever: Any = Run(tiny.run, load_plugins((), settings).registries, settings).retriever
    asked = query_set(retriever, "test", settings.features_dir, Silent().progress)
    random = np.random.default_rng(0)
    hidden = Relevant.of([random.choice(8, random.integers(1, 5), replace=False) for _ in asked.queries])
    with retriever.catalog.snapshot() as view:
        whole = retriever.build_index(view, asked.keys)
        found = _without(retriever, asked, whole, 20, hidden, "", Silent())
        for query, text in enumerate(asked.queries):
            left = asked.keys[np.setdiff1d(np.arange(8), hidden.rows[hidden.queries == query])]
            others = retriever.build_index(view, left)
            one, count = asked.chosen(np.array([query])), len(left)
            assert one.queries == [text]
            nothing = Relevant(np.zeros(0, np.int64), np.zeros(0, np.int64), 1)
            alone = _without(retriever, one, others, 20, nothing, "", Silent())
            assert sorted(alone.images[0, :count]) == sorted(left)
            assert found.images[query, :count].tolist() == alone.images[0, :count].tolist()
            assert found.scores[query, :count] == pytest.approx(alone.scores[0, :count], abs=1e-5)
            assert (found.images[query, count:] == -1).all()
