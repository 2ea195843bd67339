"""Plugins: taken as a whole or left out with a reason; never able to end the program or to spoil its output."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from genret import discovery
from genret.errors import GenretError
from genret.plugins import Plugins, load_plugins
from genret.settings import Settings

GOOD = """
import genret

@genret.hookimpl
def register_losses(register):
    register("{name}", "somewhere.else:Loss")
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr(discovery, "entry_points", lambda group: [])
    (tmp_path / "plugins").mkdir()
    return tmp_path


def load(home: Path, *files: Path, **settings) -> Plugins:
    return load_plugins(files, Settings(home=home, **settings))


def write(home: Path, name: str, text: str) -> Path:
    path = home / "plugins" / f"{name}.py"
    path.write_text(text)
    return path


def test_builtins_come_in_by_the_same_door(home):
    loaded = load(home)
    assert [plugin.name for plugin in loaded.loaded] == ["genret"] and not loaded.failures
    assert loaded.registries.identifier.origin("rq") == "genret"
    assert {"recon", "commit", "align", "token", "rank"} <= set(loaded.registries.loss.names())


def test_one_file_plugin_in_the_home(home):
    write(home, "mine", GOOD.format(name="mine"))
    loaded = load(home)
    assert loaded.registries.loss.origin("mine") == "mine"
    assert loaded.loaded[-1].hooks == ("register_losses",)


def test_file_named_on_the_command_line(home, tmp_path):
    path = tmp_path / "extra.py"
    path.write_text(GOOD.format(name="extra"))
    assert "extra" in load(home, path).registries.loss
    assert "extra" in load(home, path, plugins="").registries.loss


BROKEN = {
    "raises": ("raise RuntimeError('boom')", "RuntimeError: boom"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "syntax": ("def (", "SyntaxError"),
    "package": ("import no_such_package_anywhere", "needs the package 'no_such_package_anywhere'"),
    "signature": (
        "import genret\n@genret.hookimpl\ndef register_losses(register, surprise): pass\n",
        "surprise",
    ),
    "misspelt": (
        "import genret\n@genret.hookimpl\ndef register_loses(register): pass\n",
        "no hook 'register_loses', did you mean 'register_losses'?",
    ),
    "nothing": ("import genret\ndef register_losses(register): pass\n", "@genret.hookimpl"),
    "taken": (GOOD.format(name="rank"), "the loss 'rank' of taken is already registered by genret"),
    "halfway": (
        "import genret\n@genret.hookimpl\ndef register_losses(register):\n"
        "    register('first', 'a:B')\n    raise KeyError('second')\n",
        "KeyError: 'second'",
    ),
    "target": (
        "import genret\n@genret.hookimpl\ndef register_losses(register):\n    register('x', 'no colon')\n",
        "module:Class",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_left_out_alone(home, capsys, name):
    text, reason = BROKEN[name]
    path = write(home, name, text)
    write(home, "zz_sound", GOOD.format(name="sound"))
    loaded = load(home)
    assert "sound" in loaded.registries.loss, "others still load"
    assert loaded.registries.loss.names() == load(home, plugins="zz_sound").registries.loss.names(), "nothing is left"
    (failure,) = loaded.failures
    assert failure.name == name and failure.source == str(path) and reason in failure.reason
    assert "Traceback" in failure.traceback or "SyntaxError" in failure.traceback
    printed = capsys.readouterr()
    assert printed.out == ""
    assert sum(f"plugin '{name}'" in line for line in printed.err.splitlines()) == 1


@pytest.mark.parametrize("name", BROKEN)
def test_strict_plugins_end_the_program(home, name):
    write(home, name, BROKEN[name][0])
    with pytest.raises(GenretError, match=f"plugin '{name}'"):
        load(home, strict_plugins=True)


def test_two_plugins_with_one_name_the_later_is_refused(home):
    write(home, "a_first", GOOD.format(name="same"))
    write(home, "b_second", GOOD.format(name="same"))
    loaded = load(home)
    assert loaded.registries.loss.origin("same") == "a_first"
    assert "b_second" in loaded.failures[0].reason and "a_first" in loaded.failures[0].reason


def test_two_files_of_one_stem(home, tmp_path):
    write(home, "mine", GOOD.format(name="one"))
    other = tmp_path / "mine.py"
    other.write_text(GOOD.format(name="two"))
    loaded = load(home, other)
    assert "one" in loaded.registries.loss and "two" not in loaded.registries.loss
    assert "already loaded" in loaded.failures[0].reason


def test_import_noise_goes_to_standard_error(home, capsys):
    write(home, "noisy", "print('hello there')\n" + GOOD.format(name="noisy"))
    assert "noisy" in load(home).registries.loss
    printed = capsys.readouterr()
    assert printed.out == "" and "hello there" in printed.err


def test_switching_off_and_choosing(home):
    for name in ("a", "b"):
        write(home, name, GOOD.format(name=f"loss-{name}"))
    assert [plugin.name for plugin in load(home, plugins="").loaded] == ["genret"]
    assert [plugin.name for plugin in load(home, plugins=" b ").loaded] == ["genret", "b"]
    assert "did you mean 'a'" not in load(home, plugins="b,nowhere").failures[0].reason
    assert load(home, plugins="b,nowhere").failures[0].name == "nowhere"


def test_unknown_names_point_at_the_plugin_that_failed(home):
    write(home, "raises", "raise RuntimeError('boom')")
    with pytest.raises(GenretError, match="genret plugins"):
        load(home).registries.dataset.get("emoji")


def test_installed_plugins_come_by_entry_points(home, tmp_path, monkeypatch):
    (tmp_path / "installed_toy.py").write_text(GOOD.format(name="installed"))
    monkeypatch.syspath_prepend(tmp_path)
    points = [importlib.metadata.EntryPoint("toy", "installed_toy", "genret")]
    monkeypatch.setattr(discovery, "entry_points", lambda group: points)
    loaded = load(home)
    assert loaded.registries.loss.origin("installed") == "toy"
    del sys.modules["installed_toy"]


def test_missing_file_is_a_failure(home, tmp_path):
    (failure,) = load(home, tmp_path / "absent.py").failures
    assert "there is no file" in failure.reason
