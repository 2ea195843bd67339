"""Installing plugins: which program does it, what it is told, what is remembered. No package is really installed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from genret.errors import GenretError, UnknownName, UsageError
from genret.guide import installer
from genret.settings import Settings


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have been run."""
    commands: list[list[str]] = []
    monkeypatch.setattr(installer, "_run", lambda command, say: commands.append(command))
    return commands


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "genret-mine"
    folder.mkdir()
    (folder / "pyproject.toml").write_text('[project]\nname = "Genret_Mine"\nversion = "1"\n')
    return folder


def without_pip(monkeypatch: pytest.MonkeyPatch, uv: str | None) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else real(name))
    monkeypatch.setattr(installer.shutil, "which", lambda name: uv)
    monkeypatch.delenv("UV", raising=False)


def install(words: list[str], **flags: bool) -> list[installer.Wanted]:
    things = installer.wanted(words)
    installer.install(things, print, **({"editable": False, "upgrade": False} | flags))
    return things


def test_pip_of_this_very_environment(ran: Any, project: Path) -> None:
    install(["genret-fsq", str(project)], upgrade=True)
    install([str(project)], editable=True)
    assert ran == [
        [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "genret-fsq", str(project)],
        [sys.executable, "-m", "pip", "install", "--quiet", "--editable", str(project)],
    ]


def test_uv_where_there_is_no_pip(ran: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_pip(monkeypatch, "/opt/bin/uv")
    install(["genret-fsq>=0.1"])
    monkeypatch.setenv("UV", "/another/uv")  # as `uv run` says of itself
    monkeypatch.setattr(installer, "_is_installed", lambda package: True)
    settings = Settings(home=tmp_path)
    installer.note_installed(installer.wanted(["genret-fsq"]), settings)
    assert installer.uninstall(["genret-fsq"], settings, print) == ["genret-fsq"]
    assert ran == [
        ["/opt/bin/uv", "pip", "install", "--quiet", "--python", sys.executable, "genret-fsq>=0.1"],
        ["/another/uv", "pip", "uninstall", "--quiet", "--python", sys.executable, "genret-fsq"],
    ]


def test_neither_pip_nor_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pip(monkeypatch, None)
    with pytest.raises(GenretError, match=r"neither pip nor uv .*ensurepip"):
        install(["genret-fsq"])


@pytest.mark.parametrize(
    ("word", "package"),
    [
        ("genret-fsq", "genret-fsq"),
        ("Genret_FSQ[extra]>=1.0", "genret-fsq"),
        ("genret.fsq==0.1", "genret-fsq"),
        ("genret-fsq @ git+https://example.org/fsq.git", "genret-fsq"),
        ("git+https://example.org/fsq.git", None),
    ],
)
def test_names_of_packages(word: str, package: str | None) -> None:
    assert installer.wanted([word]) == [(word, package)]


def test_folders_and_files(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for word in ("genret-mine", "./genret-mine", str(project), "genret-mine/"):
        assert installer.wanted([word]) == [(str(project), "genret-mine")]
    (tmp_path / "genret_mine-1.0-py3-none-any.whl").touch()
    assert installer.wanted(["./genret_mine-1.0-py3-none-any.whl"])[0].package == "genret-mine"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("./nowhere", "there is no folder"),
        ("./empty", "has no pyproject.toml"),
        ("mine.py", "is one file: copy it to <home>/plugins"),
        ("--index-url=https://example.org", "is no package"),
    ],
)
def test_what_cannot_be_installed(word: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=said):
        installer.wanted([word])


def test_only_folders_are_editable(ran: Any) -> None:
    with pytest.raises(UsageError, match="'genret-fsq' is none"):
        install(["genret-fsq"], editable=True)
    assert not ran


def test_what_was_installed_once_is_remembered(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert installer.missing_packages(settings) == {}
    installer.note_installed(installer.wanted(["genret-gone>=1", "pytest"]), settings)
    assert installer.missing_packages(settings) == {"genret-gone": "genret-gone>=1"}
    (tmp_path / "plugins" / "installed.json").write_text("[torn")
    assert installer.missing_packages(settings) == {}


def test_what_cannot_be_removed(tmp_path: Path, ran: Any) -> None:
    settings = Settings(home=tmp_path)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "mine.py").touch()
    with pytest.raises(UsageError, match=r"the file .*mine\.py; delete it"):
        installer.uninstall(["mine"], settings, print)
    with pytest.raises(UsageError, match="genret itself"):
        installer.uninstall(["genret"], settings, print)
    with pytest.raises(UnknownName, match="unknown plugin 'pytest'"):
        installer.uninstall(["pytest"], settings, print)
    assert not ran


def test_a_failing_installer_is_one_sentence_and_its_words_are_passed_on() -> None:
    said: list[str] = []
    script = "print('some words'); print('ERROR: No matching distribution'); raise SystemExit(3)"
    with pytest.raises(GenretError, match=r"^pip failed with exit code 3: ERROR: No matching distribution$"):
        installer._run([sys.executable, "-c", script], said.append)
    assert said == ["some words", "ERROR: No matching distribution"]


def test_the_report_comes_from_a_new_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENRET_PLUGINS", "")
    monkeypatch.setenv("GENRET_STRICT_PLUGINS", "1")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "sick.py").write_text("raise RuntimeError('boom')")
    found = installer.plugins_now(Settings(home=tmp_path))
    assert found["plugins"][0]["name"] == "genret"
    assert [failure["reason"] for failure in found["failures"] if failure["name"] == "sick"] == ["RuntimeError: boom"]


# ------------------------------------------------------------------------------------------------ the commands
@pytest.fixture
def cli(tmp_path: Path) -> Any:
    from typer.testing import CliRunner

    from genret.cli import build
    from genret.cli.state import State
    from genret.plugin.loading import load_plugins

    settings = Settings(home=tmp_path / "home", plugins="")
    return lambda *words: CliRunner().invoke(build(State(settings, load_plugins((), settings))), [*map(str, words)])


def answers(monkeypatch: pytest.MonkeyPatch, plugins: list[Any], failures: list[Any]) -> None:
    monkeypatch.setattr(installer, "plugins_now", lambda settings: {"plugins": plugins, "failures": failures})


def test_install_says_what_the_plugin_adds(cli: Any, ran: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine = {"name": "fsq", "source": "genret-fsq 0.1.0", "registers": {"identifier": ["fsq"], "loss": []}}
    answers(monkeypatch, [{"name": "genret", "source": "built in", "registers": {}}, mine], [])
    result = cli("install", "genret-fsq")
    assert result.exit_code == 0 and result.stdout == "fsq  genret-fsq 0.1.0\n  identifier: fsq\n"
    assert json.loads((tmp_path / "home" / "plugins" / "installed.json").read_text()) == {"genret-fsq": "genret-fsq"}


def test_install_says_why_a_plugin_cannot_be_used(cli: Any, ran: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, [], [{"name": "fsq", "source": "genret-fsq 0.1.0", "reason": "it needs the package 'x'"}])
    result = cli("install", "genret-fsq")
    assert result.exit_code == 1 and "fsq is installed, but cannot be used: it needs the package 'x'" in result.stderr


def test_install_of_what_is_no_plugin(cli: Any, ran: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers(monkeypatch, [], [])
    result = cli("install", "something")
    assert result.exit_code == 1 and "installed, but no genret plugin" in result.stderr
    assert not installer.noted_packages(Settings(home=tmp_path / "home"))


def test_missing_ones_are_listed_and_brought_back(
    cli: Any, ran: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cli("install", "--missing").stdout == "Nothing is missing.\n"
    installer.note_installed(installer.wanted(["genret-gone>=1"]), Settings(home=tmp_path / "home"))
    assert "genret-gone  MISSING" in cli("plugins").stdout
    assert json.loads(cli("plugins", "--json").stdout)["missing"] == {"genret-gone": "genret-gone>=1"}
    answers(monkeypatch, [{"name": "gone", "source": "genret-gone 1.0", "registers": {}}], [])
    assert cli("install", "--missing").exit_code == 0
    assert ran[-1][-1] == "genret-gone>=1"


def test_install_of_nothing(cli: Any) -> None:
    result = cli("install")
    assert result.exit_code == 2 and "name a package or a folder" in result.stderr
