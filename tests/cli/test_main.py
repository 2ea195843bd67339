"""The program as a process: what it imports, and how it behaves at its edges."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import genret as genret_package
from genret.cli import ROOM_OF, _split, build, main
from genret.cli.state import State
from genret.errors import UsageError
from genret.plugin.loading import load_plugins
from genret.settings import Settings

HEAVY = ("torch", "torchvision", "transformers", "timm", "open_clip", "numpy", "PIL", "sqlalchemy", "datasets", "peft")


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GENRET_")}
    return {**kept, "GENRET_HOME": str(tmp_path / "home"), "GENRET_PLUGINS": ""}


def genret(*argv: str, environment: dict[str, str], **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "genret", *argv]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, **options)


@pytest.mark.parametrize("argv", [["--help"], ["train", "--help"], ["plugins"], ["--version"]])
def test_quick_answers_import_nothing_heavy(environment, argv):
    program = (
        "import json, sys\n"
        "from genret.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code\n"
        "print('\\n' + json.dumps(sorted(sys.modules)))\n"
    )
    command = [sys.executable, "-c", program, *argv]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "genret.cli" in loaded and not loaded.intersection(HEAVY)


def test_import_genret_is_light():
    program = "import sys, genret; genret.Config, genret.hookimpl; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert not set(done.stdout.split()).intersection(HEAVY)


def test_public_names_exist():
    import genret

    for name in genret.__all__:
        assert getattr(genret, name) is not None
    with pytest.raises(AttributeError, match="genret attribute nonsense"):
        _ = genret.nonsense


def test_global_options_may_stand_anywhere():
    given = _split(
        ["--plugin", "a.py", "search", "q", "--plugin=b.py", "--debug", "--json", "--", "--debug", "--plugin"]
    )
    assert given == ([Path("a.py"), Path("b.py")], True, ["search", "q", "--json", "--", "--debug", "--plugin"])
    assert _split(["--plugin=~/a.py"]).plugin_files == [Path.home() / "a.py"]


@pytest.mark.parametrize("words", [["train", "--plugin"], ["--plugin=", "train"], ["--plugin", ""]])
def test_plugin_without_a_file(words):
    with pytest.raises(UsageError, match="--plugin needs a file"):
        _split(words)


def test_a_plugin_that_is_asked_for_has_to_be_there(environment):
    done = genret("plugins", "--plugin", "nothere.py", environment=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: --plugin nothere.py: there is no such file\n"


def test_plugin_file_adds_a_command(environment, tmp_path):
    (tmp_path / "greet.py").write_text(
        "import genret\n@genret.hookimpl\ndef register_commands(cli):\n"
        "    @cli.command()\n    def greet(name: str): print('hello', name)\n"
    )
    done = genret("greet", "world", "--plugin", str(tmp_path / "greet.py"), environment=environment)
    assert (done.returncode, done.stdout) == (0, "hello world\n")


def test_broken_plugins_warn_in_one_line_and_strictness_ends(environment, tmp_path):
    (tmp_path / "sick.py").write_text("print('noise')\nraise RuntimeError('boom')\n")
    argv = ("plugins", "--json", "--plugin", str(tmp_path / "sick.py"))
    done = genret(*argv, environment=environment)
    assert done.returncode == 0 and json.loads(done.stdout)["failures"][0]["name"] == "sick"
    assert "Warning: plugin 'sick' left out: RuntimeError: boom" in done.stderr and "Traceback" not in done.stderr
    done = genret(*argv, environment={**environment, "GENRET_STRICT_PLUGINS": "1"})
    assert done.returncode == 1 and done.stdout == "" and "Error: plugin 'sick'" in done.stderr


def test_wrong_settings_exit_2(environment):
    done = genret("plugins", environment={**environment, "GENRET_DEVICE": "gpu"})
    assert done.returncode == 2 and "GENRET_DEVICE" in done.stderr and "Traceback" not in done.stderr


def test_a_reader_that_leaves_causes_no_noise(environment):
    command = f"'{sys.executable}' -m genret plugins | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, timeout=120)
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("argv", [["plugins", "--json"], ["--version"], ["--help"], ["train", "--help"]])
def test_full_disk_below_the_output(environment, argv):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "genret", *argv]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, timeout=120)
    assert done.returncode == 1 and done.stderr.startswith("Error: the disk is full")
    assert len(done.stderr.splitlines()) == 1


def test_no_standard_output_at_all(environment, tmp_path):
    """As of services and of `>&-`: what was asked for is done, and nothing is said."""
    for words, code in (("plugins --json", 0), ("plugins", 0), ("search a --run nowhere", 2)):
        command = f"'{sys.executable}' -m genret {words} >&-"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, timeout=120)
        assert done.returncode == code and "Traceback" not in done.stderr and "unexpected" not in done.stderr, words


def test_a_working_folder_that_is_gone(environment, tmp_path):
    (tmp_path / "gone").mkdir()
    command = f"cd {tmp_path}/gone && rmdir {tmp_path}/gone && '{sys.executable}' -m genret plugins"
    environment |= {"PYTHONPATH": str(Path(genret_package.__file__).parents[1])}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, timeout=120)
    assert (done.returncode, done.stdout) == (2, "") and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("Error: the folder that genret was started in has been deleted")


def test_output_in_another_encoding(environment, tmp_path):
    (tmp_path / "k.py").write_text(
        "import genret\n@genret.hookimpl\ndef register_commands(cli):\n"
        "    @cli.command(help='Käse.')\n    def cheese(): print('Käse')\n",
        encoding="utf-8",
    )
    environment |= {"PYTHONIOENCODING": "ascii"}
    for words, said in ((["cheese"], "K?se"), (["cheese", "--help"], "Usage"), (["components", "loss"], "token")):
        done = genret(*words, "--plugin", str(tmp_path / "k.py"), environment=environment)
        assert done.returncode == 0 and said in done.stdout, done.stderr
    done = genret("components", "loss", "--json", environment=environment)
    assert done.stdout.isascii() and "v̂" in json.dumps(json.loads(done.stdout), ensure_ascii=False)


@pytest.mark.parametrize(
    ("command", "room"), [("compare", "lab"), ("sweep", "lab"), ("components", "guide"), ("serve", "serve")]
)
def test_a_command_whose_room_is_missing_says_so(command, room, monkeypatch, tmp_path):
    monkeypatch.setattr("genret.cli.find_spec", lambda name: None)
    monkeypatch.setattr("genret.plugin.loading.ROOMS", ("components",))
    settings = Settings(home=tmp_path, plugins="")
    result = CliRunner().invoke(build(State(settings, load_plugins((), settings))), [command, "x"])
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr == (
        f"Error: 'genret {command}' is part of genret/{room}, which is missing here; install genret anew\n"
    )


def test_every_command_of_a_room_is_known_as_such(tmp_path):
    """The table of rooms holds what the rooms register, no more and no less."""
    plugins = load_plugins((), Settings(home=tmp_path, plugins=""))
    for room in ("commands", "guide", "lab", "pictures", "serve", "share"):
        cli = typer.Typer()
        cli.callback()(lambda: None)  # one command alone would become the program
        import_module(f"genret.{room}").register_commands(cli)
        program = typer.main.get_command(cli)
        assert set(program.commands) == {name for name, where in ROOM_OF.items() if where == room}
    assert not plugins.failures


def test_main_without_arguments_shows_help(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("GENRET_HOME", str(tmp_path))
    monkeypatch.setenv("GENRET_PLUGINS", "")
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert "Commands:" in printed.out + printed.err


def test_home_is_not_made_by_looking(environment):
    assert genret("plugins", environment=environment).returncode == 0
    assert not Path(environment["GENRET_HOME"]).exists()
