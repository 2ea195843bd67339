"""The tutorial of docs/plugins.md, word by word: cut out, installed by pip from its folder, used by the program."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.one_process import OneProcess

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
MODULE, KIT_TEST, METHODS, TRAINED = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
(PYPROJECT,) = re.findall(r"^```toml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


class Program:
    """`python -m genret` in a process of its own, with the plugin on its path or without."""

    def __init__(self, home: Path, site: Path, tiny: Any):
        self.site = site
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("GENRET_")}
        self.environment |= {
            "GENRET_HOME": str(home),
            "GENRET_FEATURES": str(tiny.home / "features"),
            "GENRET_ARTIFACTS": str(tiny.home / "artifacts"),
            "GENRET_DEVICE": "cpu",
            "GENRET_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }

    def __call__(self, *words: object, installed: bool = True, code: int = 0) -> subprocess.CompletedProcess[str]:
        path = {"PYTHONPATH": str(self.site)} if installed else {}
        command = [sys.executable, "-m", "genret", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment | path)
        assert done.returncode == code, done.stderr
        return done


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tutorial's project, installed from its folder by pip, into a folder of its own."""
    root = tmp_path_factory.mktemp("tutorial")
    project = root / "genret-dice"
    project.mkdir()
    (project / "genret_dice.py").write_text(MODULE)
    (project / "pyproject.toml").write_text(PYPROJECT)
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(root / "site"), "./genret-dice"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return root / "site"


def test_the_whole_plugin_is_at_most_25_lines() -> None:
    assert len(MODULE.splitlines()) <= 25
    assert "class Config" in MODULE, "with options of its own"


def test_the_tutorial_is_used_from_training_to_search(site: Path, tiny: Any, tmp_path: Path) -> None:
    genret = Program(tmp_path / "home", site, tiny)
    run = tmp_path / "run"
    choice = ["--set", "identifier=dice", "--set", "identifier.num_levels=4"]
    path = os.pathsep.join([str(ROOT), str(site)])
    with OneProcess(genret.environment | {"PYTHONPATH": path}, tmp_path) as program:

        def document(*words: object) -> Any:
            done = program(*words, "--run", run, "--json")
            assert done.code == 0, done.err
            said.append(done.err)
            return json.loads(done.out)

        said = list[str]()
        assert document("train", tiny.recipe, *choice)["run"] == str(run)
        figures = document("evaluate")
        mine = tiny.draw(tmp_path / "mine.png", "red", "circle")
        added = document("index", mine)
        hits = document("search", "a red circle on grey", "-k", "20")["hits"]
    assert "loss.recon has no effect" in said[0]
    noted = json.loads((run / "environment.json").read_text())
    assert noted["components"]["identifier dice"] == "dice" and noted["plugins"]["dice"] == "genret-dice 0.1.0"

    assert figures["num_images"] == 8 and figures["recall"]["10"] is not None
    assert added["added"] == 1
    assert str(mine) in {hit["image_id"] for hit in hits} and len(hits) == 9
    assert all(re.fullmatch(r"c\d_\d+", symbol) for hit in hits for symbol in hit["identifier"])
    assert all(len(hit["identifier"]) == 4 for hit in hits)

    missing = "when the run was made it came from the plugin 'dice' (genret-dice 0.1.0)"
    assert missing in genret("search", "a red circle", "--run", run, installed=False, code=2).stderr
    another = tiny.draw(tmp_path / "another.png", "blue", "circle")  # what is there already asks nothing of the model
    for words in (["evaluate"], ["index", another], ["train", "--resume"]):
        answer = tiny.genret(*words, "--run", run)
        assert answer.code == 2 and missing in answer.err


def test_the_kit_as_the_tutorial_uses_it(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from genret.testing import ContractError

    monkeypatch.syspath_prepend(site)
    written: dict[str, Any] = {}
    exec(KIT_TEST, written)
    written["test_the_contract"]()
    # what the page says that pytest says
    (said,) = re.findall(r'for example, "(.*?)"\.\n', TEXT, re.DOTALL)
    dice = written["Dice"]
    monkeypatch.setattr(dice, "new_images", "content_based")
    with pytest.raises(ContractError) as caught:
        written["test_the_contract"]()
    assert " ".join(said.split()) in str(caught.value)
    sys.modules.pop("genret_dice")


def test_the_trained_identifier_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    from genret.testing import check_identifier

    (tmp_path / "genret_one_book.py").write_text(TRAINED)
    monkeypatch.syspath_prepend(tmp_path)
    check_identifier(importlib.import_module("genret_one_book").OneBook, train={"epochs": 2, "batch_size": 12})
    sys.modules.pop("genret_one_book")


def test_the_retriever_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    from genret.testing import check_retriever

    lines = ["import genret", "class Dense(genret.CatalogRetriever):", '    """By dot product."""', "    needs = ()"]
    lines += ["    class Config(genret.Config): ...", textwrap.indent(METHODS, "    ")]
    (tmp_path / "genret_dense.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    check_retriever(importlib.import_module("genret_dense").Dense, beats_chance=False)
    sys.modules.pop("genret_dense")


def test_as_a_file_it_is_a_plugin_already(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "genret_dice.py").write_text(MODULE)
    genret = Program(tmp_path / "home", tmp_path / "nowhere", tiny)
    words = ("components", "identifier", "dice", "--json", "--plugin", tmp_path / "genret_dice.py")
    (shown,) = json.loads(genret(*words, installed=False).stdout)["components"]
    assert shown["origin"] == "genret_dice" and shown["summary"].startswith("Codes by lot")
    assert [(o["name"], o["default"], o["meaning"]) for o in shown["options"]] == [
        ("num_levels", 3, "Vokens per image.")
    ]


# ------------------------------------------------------------------------------------------------ broken plugins
BROKEN = {
    "raises": ("raise RuntimeError('boom')", "RuntimeError: boom"),
    "signature": (
        "import genret\n@genret.hookimpl\ndef register_losses(registry): pass",
        "the hook register_losses has no argument 'registry'; write: def register_losses(register)",
    ),
    "taken": (
        "import genret\n@genret.hookimpl\ndef register_losses(register): register('rank', 'a:B')",
        "the loss 'rank' of taken is already registered by genret",
    ),
    "needy": ("import no_such_package_anywhere", "it needs the package 'no_such_package_anywhere'"),
}
NOISY = """
print("noise at import")
import genret
@genret.hookimpl
def register_commands(cli): print("noise in a hook")
@genret.hookimpl
def register_losses(register):
    print("more noise")
    register("noisy", "somewhere:Loss")
"""


def test_broken_plugins_leave_every_command_working_and_are_explained_in_one_line(tiny: Any, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "plugins").mkdir(parents=True)
    for name, (text, _) in BROKEN.items():
        (home / "plugins" / f"{name}.py").write_text(textwrap.dedent(text))
    (home / "plugins" / "noisy.py").write_text(NOISY)
    genret = Program(home, tmp_path, tiny)
    done = [
        genret("--help"),
        genret("train", tiny.recipe, "--run", tmp_path / "run", "--json"),
        genret("search", "a red square", "--run", tmp_path / "run", "--json"),
    ]
    assert "Usage: genret" in done[0].stdout and "noise" not in done[0].stdout
    assert all(len(run.stdout.splitlines()) == 1 and json.loads(run.stdout) for run in done[1:])
    for run in done:
        for name, (_, reason) in BROKEN.items():
            (line,) = [line for line in run.stderr.splitlines() if f"plugin '{name}'" in line]
            assert line.startswith("Warning: ") and reason in line
        assert "noise at import" in run.stderr
    listed = tiny.genret("plugins", home=home).out
    assert "FAILED: RuntimeError: boom" in listed and "raise RuntimeError('boom')" in listed, "the full text"
    strict = subprocess.run(
        [sys.executable, "-m", "genret", "--help"],
        capture_output=True,
        text=True,
        env=genret.environment | {"GENRET_STRICT_PLUGINS": "1"},
    )
    assert strict.returncode == 1 and len(strict.stderr.splitlines()) == 1 and "'needy'" in strict.stderr
