"""The core alone: with `genret/lab` or `genret/pictures` taken away it does the rest, and says what is missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import genret

PROGRAM = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder)]  # it would find the lab elsewhere
from genret.cli import main
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package without the lab."""
    root = tmp_path_factory.mktemp("bare")
    ignored = shutil.ignore_patterns("lab", "__pycache__")
    shutil.copytree(Path(genret.__file__).parent, root / "genret", ignore=ignored)
    return root


def program(bare: Path, tiny: Any, *words: object) -> subprocess.CompletedProcess[str]:
    lent = {"PYTHONPATH": str(bare), "GENRET_HOME": str(bare / "home"), "GENRET_DEVICE": "cpu", "GENRET_PLUGINS": ""}
    command = [sys.executable, "-P", "-c", PROGRAM, *map(str, words)]
    environment = os.environ | lent | {"GENRET_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, cwd=bare, capture_output=True, text=True, timeout=300)


def test_the_core_needs_no_lab(bare: Path, tiny: Any) -> None:
    trained = program(bare, tiny, "train", tiny.recipe, "--run", bare / "run", "--json")
    assert trained.returncode == 0, trained.stderr
    figures = json.loads(trained.stdout)["evaluation"]
    assert {"confidence", "leakage", "codebooks"}.isdisjoint(figures)
    with_lab = json.loads((tiny.run / "summary.json").read_text())["evaluation"]
    assert figures == {key: with_lab[key] for key in figures}, "the same figures, but for those that the lab measures"

    found = program(bare, tiny, "search", "a red square on grey", "--run", bare / "run", "--json")
    assert found.returncode == 0 and json.loads(found.stdout)["hits"], found.stderr
    new = tiny.draw(bare / "new.png", "blue", "circle")
    added = program(bare, tiny, "index", new, "--run", bare / "run", "--json")
    assert added.returncode == 0 and json.loads(added.stdout)["added"] == 1, added.stderr
    again = program(bare, tiny, "evaluate", "--run", bare / "run", "--num-beams", "5,10", "--json")
    assert again.returncode == 0 and json.loads(again.stdout)["recall"] == figures["recall"], again.stderr


def test_what_the_lab_brings_is_named(bare: Path, tiny: Any) -> None:
    asked = program(bare, tiny, "evaluate", "--run", bare / "run", "--trec", bare / "trec")
    assert asked.returncode == 2 and "unknown evaluator 'trec'" in asked.stderr and "Traceback" not in asked.stderr


def test_the_core_needs_no_pictures(bare: Path, tiny: Any, tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("pictures", "__pycache__")
    shutil.copytree(Path(genret.__file__).parent, tmp_path / "genret", ignore=ignored)
    run = tiny.copy(tmp_path / "run")
    found = program(tmp_path, tiny, "search", "a red square on grey", "--run", run, "--json")
    assert found.returncode == 0, found.stderr
    assert [hit["image_id"] for hit in json.loads(found.stdout)["hits"]] == tiny.search("-k", 10)
    asked = program(tmp_path, tiny, "index", tiny.data, "--run", run)
    assert asked.returncode == 2 and "'genret index' is part of genret/pictures, which is missing" in asked.stderr
    asked = program(tmp_path, tiny, "search", "red -blue", "--run", run)
    assert asked.returncode == 2 and "unknown function 'search'" in asked.stderr and "Traceback" not in asked.stderr
