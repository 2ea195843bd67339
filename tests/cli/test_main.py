"""The program as a process: what it imports, and how it behaves at its edges."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from genret.cli import _split, main

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
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = genret.nonsense


def test_global_options_may_stand_anywhere():
    given = _split(
        ["--plugin", "a.py", "search", "q", "--plugin=b.py", "--debug", "--json", "--", "--debug", "--plugin"]
    )
    assert given == (["a.py", "b.py"], True, ["search", "q", "--json", "--", "--debug", "--plugin"])
    assert _split(["train", "--plugin"]).rest == ["train", "--plugin"], "typer says what is missing"


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
def test_full_disk_below_the_output(environment):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "genret", "plugins", "--json"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, timeout=120)
    assert done.returncode == 1 and done.stderr.startswith("Error: the disk is full")
    assert len(done.stderr.splitlines()) == 1


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
