"""Machine facts from the environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from genret.errors import UsageError
from genret.settings import load_settings


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    import os

    for name in [name for name in os.environ if name.startswith("GENRET_")]:
        monkeypatch.delenv(name)


def test_defaults_live_below_the_users_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = load_settings()
    assert settings.home == tmp_path / ".genret"
    assert settings.runs_dir == tmp_path / ".genret" / "runs"
    assert settings.features_dir == tmp_path / ".genret" / "features"
    assert settings.device == "auto" and settings.plugins is None and not settings.strict_plugins
    assert not settings.home.exists(), "reading the settings writes nothing"


def test_home_moves_everything_and_single_folders_move_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("GENRET_HOME", str(tmp_path / "h"))
    monkeypatch.setenv("GENRET_FEATURES", str(tmp_path / "big-disk"))
    settings = load_settings()
    assert settings.weights_dir == tmp_path / "h" / "weights"
    assert settings.features_dir == tmp_path / "big-disk"


def test_relative_homes_are_made_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENRET_HOME", "here")
    assert load_settings().home == Path.cwd() / "here"


def test_empty_plugins_differ_from_unset(monkeypatch):
    monkeypatch.setenv("GENRET_PLUGINS", "")
    assert load_settings().plugins == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [("GENRET_DEVICE", "gpu"), ("GENRET_NUM_THREADS", "0"), ("GENRET_LOG_LEVEL", "loud"), ("GENRET_NUM_THREADS", "x")],
)
def test_wrong_values_name_the_variable(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=name):
        load_settings()


WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@pytest.mark.parametrize("first", ["import genret", "import genret.cli", "import genret.run", "import genret.kit.loop"])
@pytest.mark.parametrize("own", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}])
def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise(first, own):
    """Set before torch is loaded, whatever is imported first; one variable of the user's leaves all of them alone."""
    code = f"import os, sys\n{first}\nprint([os.environ.get(name) for name in {WAITING}], 'torch' in sys.modules)"
    kept = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run([sys.executable, "-c", code], env=kept | own, capture_output=True, text=True, check=True)
    wanted = [own.get(name) for name in WAITING] if own else ["PASSIVE", "0", "0"]
    assert done.stdout.startswith(str(wanted)), done.stderr
    assert not (first in ("import genret", "import genret.cli") and "True" in done.stdout), "torch stays out"
