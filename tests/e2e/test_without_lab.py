"""The core alone: with `genret/lab` or `genret/pictures` taken away it does the rest, and says what is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import genret
from tests.e2e.one_process import OneProcess, lent


class Bare(NamedTuple):
    root: Path
    """A copy of the package without the lab, and what its commands write."""
    program: OneProcess


@contextmanager
def without(room: str, root: Path) -> Iterator[OneProcess]:
    """The program with one folder of the package taken away."""
    ignored = shutil.ignore_patterns(room, "__pycache__")
    shutil.copytree(Path(genret.__file__).parent, root / "genret", ignore=ignored)
    environment = lent(
        PYTHONPATH=root, GENRET_HOME=root / "home", GENRET_DEVICE="cpu", GENRET_PLUGINS="", GENRET_NUM_THREADS=1
    )
    with OneProcess(environment, root) as program:
        yield program


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    root = tmp_path_factory.mktemp("bare")
    with without("lab", root) as program:
        yield Bare(root, program)


def test_the_core_needs_no_lab(bare: Bare, tiny: Any) -> None:
    trained = bare.program("train", tiny.recipe, "--run", bare.root / "run", "--json")
    assert trained.code == 0, trained.err
    figures = json.loads(trained.out)["evaluation"]
    assert {"confidence", "leakage", "codebooks"}.isdisjoint(figures)
    with_lab = json.loads((tiny.run / "summary.json").read_text())["evaluation"]
    assert figures == {key: with_lab[key] for key in figures}, "the same figures, but for those that the lab measures"

    found = bare.program("search", "a red square on grey", "--run", bare.root / "run", "--json")
    assert found.code == 0 and json.loads(found.out)["hits"], found.err
    new = tiny.draw(bare.root / "new.png", "blue", "circle")
    added = bare.program("index", new, "--run", bare.root / "run", "--json")
    assert added.code == 0 and json.loads(added.out)["added"] == 1, added.err
    again = bare.program("evaluate", "--run", bare.root / "run", "--num-beams", "5,10", "--json")
    assert again.code == 0 and json.loads(again.out)["recall"] == figures["recall"], again.err


def test_what_the_lab_brings_is_named(bare: Bare, tiny: Any) -> None:
    asked = bare.program("evaluate", "--run", bare.root / "run", "--trec", bare.root / "trec")
    assert asked.code == 2 and "unknown evaluator 'trec'" in asked.err and "Traceback" not in asked.err


def test_the_core_needs_no_pictures(tiny: Any, tmp_path: Path) -> None:
    with without("pictures", tmp_path) as program:
        run = tiny.copy(tmp_path / "run")
        found = program("search", "a red square on grey", "--run", run, "--json")
        assert found.code == 0, found.err
        assert [hit["image_id"] for hit in json.loads(found.out)["hits"]] == tiny.search("-k", 10, "--run", tiny.run)
        asked = program("index", tiny.data, "--run", run)
        assert asked.code == 2 and "'genret index' is part of genret/pictures, which is missing" in asked.err
        asked = program("search", "red -blue", "--run", run)
        assert asked.code == 2 and "unknown function 'search'" in asked.err and "Traceback" not in asked.err
