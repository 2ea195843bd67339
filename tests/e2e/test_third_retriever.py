"""A retriever that genret does not know, from a plugin file: nothing asks which one it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genret.catalog.store import Catalog
from tests.e2e import dice

QUERY = "a red square on grey"
TRAINING_IMAGES = 24


@pytest.fixture(scope="module")
def home(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the plugin, and with what the tiny run has made."""
    home = Path(tmp_path_factory.mktemp("third") / "home")
    for part in ("artifacts", "features"):
        shutil.copytree(tiny.home / part, home / part)
    (home / "plugins").mkdir()
    shutil.copy(dice.__file__, home / "plugins" / "throws.py")
    return home


@pytest.fixture(scope="module")
def train(tiny: Any, home: Path) -> Any:
    def train(name: str, *options: str) -> Path:
        sets = [word for option in ("retriever=dice", *options) for word in ("--set", option)]
        answer = tiny.genret("train", tiny.recipe, *sets, "--run", home / "runs" / name, home=home)
        assert answer.code == 0, answer.err
        assert "retriever dice does not use: identifier, backbone, loss" in " ".join(answer.err.split())
        return home / "runs" / name

    return train


@pytest.fixture(scope="module")
def thrown(train: Any) -> Path:
    return Path(train("thrown"))


def expected(run: Path, query: str, seed: int = 0, split: str | None = None) -> list[str]:
    """Every image's id, best first."""
    with Catalog.open(run / "catalog.sqlite") as catalog:
        keys = catalog.searchable_keys() if split is None else catalog.keys(split)
        order = np.argsort(-dice.thrown((seed, TRAINING_IMAGES), query, keys), kind="stable")
        return [row.image_id for row in catalog.lookup(keys[order])]


def found(tiny: Any, home: Path, run: Path, *words: object) -> list[str]:
    document = tiny.genret("search", QUERY, "--run", run, "--json", *words, home=home).document
    assert document["num_beams"] is None and all(hit["identifier"] is None for hit in document["hits"])
    return [hit["image_id"] for hit in document["hits"]]


def test_it_trains_and_searches(tiny: Any, home: Path, thrown: Path) -> None:
    assert json.loads((thrown / "retriever" / "dice.json").read_text()) == TRAINING_IMAGES
    assert not (thrown / "identifier").exists() and not (thrown / "generator").exists()
    everything = expected(thrown, QUERY)
    assert found(tiny, home, thrown, "-k", 50) == everything and len(everything) == 8
    assert found(tiny, home, thrown, "-k", 3) == everything[:3]
    assert found(tiny, home, thrown, "-k", 50, "--not", everything[0]) == everything[1:], "the restricted search"
    listed = tiny.genret("components", "retriever", "--json", home=home).document["components"]
    assert {one["name"]: one["origin"] for one in listed}["dice"] == "throws"


def test_it_indexes_and_forgets(tiny: Any, home: Path, thrown: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(thrown, tmp_path / "run"))
    own = tiny.draw(tmp_path / "mine" / "own.png", "red", "square", "grey")
    assert tiny.genret("index", own, "--run", run, "--json", home=home).document["added"] == 1
    more = found(tiny, home, run, "-k", 50)
    assert more == expected(run, QUERY) and len(more) == 9
    new = next(name for name in more if name.endswith("own.png"))
    assert tiny.genret("index", "--remove", new, "--run", run, "--json", home=home).document["removed"] == 1
    assert found(tiny, home, run, "-k", 50) == [name for name in more if name != new]


def test_it_is_evaluated(tiny: Any, home: Path, thrown: Path) -> None:
    figures = tiny.genret("evaluate", "--run", thrown, "--json", home=home).document
    with Catalog.open(thrown / "catalog.sqlite") as catalog:
        captions = catalog.captions("test")
        ids = [row.image_id for row in catalog.lookup(captions.image_keys)]
    places = [expected(thrown, text, split="test").index(i) + 1 for text, i in zip(captions.texts, ids, strict=True)]
    for k in (1, 5, 10):
        assert figures["recall"][str(k)] == pytest.approx(100 * np.mean([place <= k for place in places]))
    assert figures["measures"]["searched"]["mrr"] == pytest.approx(np.mean([1 / place for place in places]))
    assert figures["num_beams"] is None and figures["ledger"] == [] and figures["by_num_beams"] == {}
    assert figures == json.loads((thrown / "summary.json").read_text())["evaluation"]
    answer = tiny.genret("report", thrown, "--out", home / "report.html", "--queries", 1, home=home)
    assert answer.code == 0, answer.err
    assert "thrown" in (home / "report.html").read_text()


def test_its_candidates_are_reranked(tiny: Any, home: Path, train: Any) -> None:
    run = train("reranked", "rerank={type: dense, candidates: 5}")
    first = expected(run, QUERY)[:5]
    hits = found(tiny, home, run, "-k", 5)
    assert sorted(hits) == sorted(first)
    with Catalog.open(run / "catalog.sqlite") as catalog:
        vectors = {name: catalog.features_of(catalog.keys_of([name]))[0] for name in first}
    scores = tiny.genret("search", QUERY, "--run", run, "-k", 5, "--json", home=home).document["hits"]
    query = _query_vector(tiny, home, run)
    for hit in scores:
        assert hit["score"] == pytest.approx(float(query @ vectors[hit["image_id"]]), abs=1e-4)
    assert [hit["score"] for hit in scores] == sorted((hit["score"] for hit in scores), reverse=True)
    figures = tiny.genret("evaluate", "--run", run, "--json", home=home).document
    assert figures["first_stage"] is not None


def _query_vector(tiny: Any, home: Path, run: Path) -> torch.Tensor:
    from genret.plugin.loading import load_plugins
    from genret.run import Run
    from genret.settings import Settings

    settings = Settings(home=home, device="cpu", num_threads=1)
    with Run(run, load_plugins((), settings).registries, settings) as opened:
        return opened.retriever.text_vectors([QUERY])[0]


def test_it_is_compared_and_swept(tiny: Any, home: Path, thrown: Path, train: Any) -> None:
    other = train("other", "retriever={type: dice, seed: 1}")
    assert found(tiny, home, other, "-k", 50) == expected(other, QUERY, seed=1) != expected(thrown, QUERY)
    compared = tiny.genret("compare", thrown, other, "--json", home=home).document
    assert [one["name"] for one in compared["runs"]] == ["thrown", "other"]
    words = ("sweep", tiny.recipe, "--set", "retriever=dice", "--grid", "retriever.seed=2,3", "--json")
    answer = tiny.genret(*words, "--out", home / "sweep", home=home)
    assert answer.code == 0, answer.err
