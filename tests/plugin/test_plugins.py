"""Plugins: taken as a whole or left out with a reason; never able to end the program or to spoil its output."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

import pytest

from genret.errors import GenretError, UsageError
from genret.plugin import discovery
from genret.plugin.loading import Plugins, load_plugins
from genret.settings import Settings
from genret.shell.provenance import remember_run

GOOD = """
import genret

@genret.hookimpl
def register_losses(register):
    register("{name}", "somewhere.else:Loss")
"""


ROOMS = ("commands", "shell", "guide", "lab", "pictures", "serve", "share")
BUILT_IN = ["genret", *(f"genret.{room}" for room in ROOMS)]


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
    assert [plugin.name for plugin in loaded.loaded] == BUILT_IN and not loaded.failures
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
        "import genret\n@genret.hookimpl\ndef register_losses(registre): pass\n",
        "the hook register_losses has no argument 'registre'; write: def register_losses(register)",
    ),
    "one argument more": (
        "import genret\n@genret.hookimpl\ndef register_losses(register, surprise): pass\n",
        "no argument 'surprise'; write: def register_losses(register)",
    ),
    "no argument": (
        "import genret\n@genret.hookimpl\ndef register_commands(): pass\n",
        "the hook register_commands takes no argument and so adds nothing; write: def register_commands(cli)",
    ),
    "unmarked": (
        GOOD.format(name="marked") + "\ndef register_encoders(register): pass\n",
        "the function register_encoders lacks @genret.hookimpl above it",
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
    capsys.readouterr()
    load(home)
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
    assert f"{other} and {home}/plugins/mine.py both bring a plugin of this name" in loaded.failures[0].reason


def test_import_noise_goes_to_standard_error(home, capsys):
    write(home, "noisy", "print('hello there')\n" + GOOD.format(name="noisy"))
    assert "noisy" in load(home).registries.loss
    printed = capsys.readouterr()
    assert printed.out == "" and "hello there" in printed.err


def test_switching_off_and_choosing(home):
    for name in ("a", "b"):
        write(home, name, GOOD.format(name=f"loss-{name}"))
    assert [plugin.name for plugin in load(home, plugins="").loaded] == BUILT_IN
    assert [plugin.name for plugin in load(home, plugins=" b ").loaded] == [*BUILT_IN, "b"]
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


def test_a_file_that_is_asked_for_has_to_be_there(home, tmp_path):
    with pytest.raises(UsageError, match=r"--plugin .*absent\.py: there is no such file"):
        load(home, tmp_path / "absent.py")
    (tmp_path / "notes.txt").touch()
    for path in (tmp_path / "notes.txt", tmp_path):
        with pytest.raises(UsageError, match="it is no Python file"):
            load(home, path)


def test_strict_plugins_say_it_once(home):
    write(home, "raises", "raise RuntimeError('boom')")
    with pytest.raises(GenretError) as caught:
        load(home, strict_plugins=True)
    assert str(caught.value) == f"plugin 'raises' ({home}/plugins/raises.py) failed: RuntimeError: boom"


NOISY = """
import os
os.write(1, b"by descriptor ")
print("by Python")
import genret
@genret.hookimpl
def register_losses(register):
    os.write(1, b"in the hook ")
    register("noisy", "noisy_component:Loss")
"""


def test_what_an_import_writes_to_descriptor_1_is_no_answer(home, tmp_path, monkeypatch, capfd):
    write(home, "noisy", NOISY)
    (tmp_path / "noisy_component.py").write_text("import os\nos.write(1, b'by a component')\nclass Loss: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    registries = load(home).registries
    with pytest.raises(GenretError, match=r"no subclass of genret\.Loss"):
        registries.loss.get("noisy")
    print("the answer")
    printed = capfd.readouterr()
    assert printed.out == "the answer\n"
    assert all(said in printed.err for said in ("by descriptor", "by Python", "in the hook", "by a component"))
    del sys.modules["noisy_component"]


# ------------------------------------------------------------------------------------------------ who waits
COUNTS = """
import genret, pathlib
with open({log!r}, "a") as log: log.write("{name} ")
@genret.hookimpl
def register_losses(register): register("{name}", "somewhere:Loss")
"""
WITH_COMMAND = """
@genret.hookimpl
def register_commands(cli):
    @cli.command()
    def hello(): ...
"""


@pytest.fixture
def imports(home):
    """Writes plugins that say when they are imported; the returned function tells which were, since the last call."""
    log = home / "imports.txt"
    log.touch()

    def since() -> str:
        text = log.read_text()
        log.write_text("")
        return text.strip()

    since.text = lambda name: COUNTS.format(log=str(log), name=name)
    return since


def test_sound_plugins_without_commands_are_imported_when_they_are_asked_for(home, imports):
    write(home, "plain", imports.text("plain"))
    write(home, "teller", imports.text("teller") + WITH_COMMAND)
    load(home)
    assert imports() == "plain teller", "the first time nothing is known"
    again = load(home)
    assert imports() == "teller"
    assert [plugin.name for plugin in again.loaded] == [*BUILT_IN, "teller", "plain"] and imports() == "plain"
    assert {"plain", "teller"} <= set(again.registries.loss.names())
    assert load(home, strict_plugins=True).loaded and imports() == "plain teller"


def test_a_changed_plugin_is_imported_at_once(home, imports):
    write(home, "one", imports.text("one"))
    write(home, "two", imports.text("two"))
    load(home)
    imports()
    write(home, "two", imports.text("two") + WITH_COMMAND)
    load(home)
    assert set(imports().split()) == {"one", "two"}, "and so are the others: names may clash now"
    load(home)
    assert imports() == "two"
    write(home, "three", imports.text("three"))
    load(home)
    assert set(imports().split()) == {"one", "two", "three"}


def test_a_plugin_that_cannot_be_imported_does_not_keep_the_others_from_waiting(home, imports, capsys):
    write(home, "sound", imports.text("sound"))
    write(home, "broken", "raise RuntimeError('boom')")
    load(home)
    imports()
    capsys.readouterr()
    again = load(home)
    assert imports() == "" and "'broken' left out: RuntimeError: boom" in capsys.readouterr().err
    assert [failure.name for failure in again.failures] == ["broken"] and "sound" in again.registries.loss


def test_a_taken_name_is_decided_alike_at_every_start(home, imports):
    write(home, "a_first", imports.text("same"))
    write(home, "b_second", imports.text("same"))
    for _ in range(3):
        loaded = load(home)
        assert loaded.registries.loss.origin("same") == "a_first"
        assert [failure.name for failure in loaded.failures] == ["b_second"]


def test_what_was_sound_alone_is_not_trusted_beside_others(home, imports):
    write(home, "a", imports.text("same"))
    write(home, "b", imports.text("same") + WITH_COMMAND)
    load(home, plugins="a")
    load(home, plugins="b")
    assert load(home).registries.loss.origin("same") == "a"


def test_nothing_is_written_where_nothing_is_installed(home):
    load(home)
    assert not list((home / "plugins").iterdir())


def test_a_torn_or_read_only_memory_is_no_error(home, imports, monkeypatch):
    write(home, "one", imports.text("one"))
    (home / "plugins" / "known.json").write_text('{"torn')
    assert "one" in load(home).registries.loss

    def full(*given, **more):
        raise OSError("no space left")

    write(home, "two", imports.text("two"))
    monkeypatch.setattr(Path, "replace", full)
    assert "two" in load(home).registries.loss


# ------------------------------------------------------------------------------------------------ who could help
def test_a_missing_companion_is_named(home):
    with pytest.raises(
        GenretError, match=r"unknown dataset 'emoji'; .*it comes with a plugin: genret install .*genret-starter"
    ):
        load(home).registries.dataset.get("emoji")
    with pytest.raises(GenretError, match=r"genret install .*genret-starter"):
        load(home).registries.resolve_weights("starter:minilm")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("genret-gone 1.2", r"the plugin 'gone' \(genret-gone 1.2\); more come with plugins"),
        ("/x/gone.py", r"the plugin 'gone', the file /x/gone.py: name it by --plugin FILE"),
        (None, "the plugin 'gone'"),
    ],
)
def test_a_run_remembers_its_plugins(home, tmp_path, source, said):
    noted = {"components": {"identifier lost": "gone", "backbone t5": "genret"}, "plugins": {"gone": source}}
    (tmp_path / "environment.json").write_text(json.dumps(noted))
    registries = load(home).registries
    remember_run(tmp_path, registries)
    with pytest.raises(GenretError, match=f"unknown identifier 'lost'.*when the run was made it came from {said}"):
        registries.identifier.get("lost")


def test_a_run_never_chooses_what_is_to_be_installed(home, tmp_path):
    """Its environment.json may come from anywhere; `genret install` is followed by names of genret's own list alone."""
    noted = {"components": {"identifier lost": "evil", "dataset emoji": "evil"}, "plugins": {"evil": "evil-package 1"}}
    (tmp_path / "environment.json").write_text(json.dumps(noted))
    registries = load(home, plugins="").registries
    remember_run(tmp_path, registries)
    for registry, name in ((registries.identifier, "lost"), (registries.dataset, "emoji")):
        with pytest.raises(GenretError, match="it came from the plugin 'evil'") as caught:
            registry.get(name)
        assert "install evil" not in str(caught.value)
    assert "genret install" in str(caught.value) and "genret-starter" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"components": 3}', '{"components": {"x": 1, "y z": 2}}'])
def test_runs_without_such_notes_say_nothing(home, tmp_path, text):
    (tmp_path / "environment.json").write_text(text)
    registries = load(home).registries
    remember_run(tmp_path, registries)
    with pytest.raises(GenretError, match="unknown identifier 'lost'"):
        registries.identifier.get("lost")
