"""`genret plugins new`: the written project is a plugin at once, of every kind and under any proper name."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from genret import testing
from genret.errors import UnknownName, UsageError
from genret.plugin.loading import load_plugins
from genret.plugin.registry import KINDS
from genret.settings import Settings
from genret.testing.scaffold import WRITTEN, new_plugin

REGISTRIES = load_plugins((), Settings(plugins="")).registries


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a package from a folder, for this test alone."""
    names = []

    def load(root: Path, module: str) -> Any:
        monkeypatch.syspath_prepend(root)
        names.append(module)
        return importlib.import_module(module)

    yield load
    for name in list(sys.modules):
        if name.partition(".")[0] in names:
            del sys.modules[name]


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_new_plugin_of_every_kind(kind: str, tmp_path: Path, imported: Any) -> None:
    root = new_plugin("two-words", kind, tmp_path, REGISTRIES)
    assert root == tmp_path / "genret-two-words"
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["name"] == root.name and project["entry-points"]["genret"] == {"two-words": "genret_two_words"}
    module = imported(root, "genret_two_words")
    assert testing.check_plugin(module) == [f"{kind} two-words"]
    component = getattr(importlib.import_module(f"genret_two_words.{kind}"), f"TwoWords{kind.capitalize()}")
    testing.check_config(component)
    for file in root.rglob("*"):
        if file.is_file() and file.suffix != ".pyc":
            text = file.read_text()
            assert "xample" not in text and not any(line.rstrip() != line for line in text.splitlines()), file
            assert "{KIND}" not in text and "{NAME}" not in text
    found = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--ignore=I001", "--quiet", "."],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("kind", WRITTEN)
def test_its_recipe_is_sound(kind: str, tmp_path: Path, imported: Any) -> None:
    pytest.importorskip("genret_starter")
    root = new_plugin("mine", kind, tmp_path, REGISTRIES)
    testing.check_recipe(root / "recipe.yaml", imported(root, "genret_mine"))
    assert "mine" in (root / "recipe.yaml").read_text().split("dataset:", 1)[1] or kind in ("dataset", "evaluator")


def test_its_own_tests_pass(tmp_path: Path) -> None:
    root = new_plugin("mine", "reranker", tmp_path, REGISTRIES)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(root), str(root)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "failed" not in done.stdout and ("3 passed" in done.stdout or "skipped" in done.stdout)


def test_every_kind_has_a_template() -> None:
    assert set(WRITTEN) == set(KINDS)


def test_names(tmp_path: Path) -> None:
    assert new_plugin("genret-mine", "loss", tmp_path, REGISTRIES).name == "genret-mine"
    for name in ("Mine", "my scheme", "my_scheme", "-mine", "mine-", "7up", "class", "../mine", ""):
        with pytest.raises(UsageError, match="is no name for a plugin"):
            new_plugin(name, "loss", tmp_path, REGISTRIES)


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    root = new_plugin("mine", "loss", tmp_path, REGISTRIES)
    before = {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}
    with pytest.raises(UsageError, match="is there already"):
        new_plugin("mine", "identifier", tmp_path, REGISTRIES)
    assert {file: file.read_bytes() for file in root.rglob("*") if file.is_file()} == before


def test_taken_names_and_unknown_kinds(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the identifier 'rq' is already registered by genret"):
        new_plugin("rq", "identifier", tmp_path, REGISTRIES)
    with pytest.raises(UnknownName, match="did you mean 'identifier'"):
        new_plugin("mine", "identifer", tmp_path, REGISTRIES)
    with pytest.raises(UnknownName, match="unknown kind of component with a template 'weights'"):
        new_plugin("mine", "weights", tmp_path, REGISTRIES)
    assert not list(tmp_path.iterdir())
