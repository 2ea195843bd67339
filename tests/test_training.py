"""The last words of a training, and which run the commands that it prints would mean."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genret.commands.run_folders import run_option
from genret.errors import UsageError
from genret.folders import finished_run
from genret.settings import Settings
from genret.shell.next_steps import next_steps


def finished(run: Path, at: int) -> Path:
    run.mkdir(parents=True)
    (run / "summary.json").write_text("{}")
    os.utime(run / "summary.json", (at, at))
    return run


def test_the_newest_run_needs_no_option(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert run_option(finished(tmp_path / "else where", 1), settings) == f" --run '{tmp_path}/else where'"
    older, newer = (finished(settings.runs_dir / name, at) for name, at in (("avg-1", 10), ("avg-2", 20)))
    assert run_option(newer, settings) == "" and run_option(older, settings) == " --run avg-1"


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (7, "It searches 7 pictures; 43 % of their captions find the right one at the first place."),
        (10, "at the first place"),
        (1234, "It searches 1,234 pictures; 90 % of their captions find the right one among the first ten."),
    ],
)
def test_what_was_found_is_said_of_captions_and_of_places_that_say_something(
    count: int, said: str, tmp_path: Path
) -> None:
    """Among seven pictures the first ten are all of them, whatever the model does."""
    settings = Settings(home=tmp_path)
    run: Any = SimpleNamespace(folder=finished(tmp_path / "mine", 1), settings=settings)
    searched: Any = SimpleNamespace(records=[None] * count, captions=["it's a dog"])
    found: Any = SimpleNamespace(recall={"1": 42.9, "5": 80.0, "10": 100.0 if count <= 10 else 90.2}, remark=None)
    narrow: Any = SimpleNamespace(recall={"1": 42.9, "5": None, "10": None}, remark=None)
    assert "43 % of their captions find the right one at the first" in next_steps(run, searched, narrow, {})
    nothing: Any = SimpleNamespace(recall=dict.fromkeys(("1", "5", "10")), remark="not applicable: atomic")
    assert "not measured: not applicable: atomic." in next_steps(run, searched, nothing, {})
    assert "not measured: they have no captions." in next_steps(run, searched, None, {})
    words = next_steps(run, searched, found, {"features": 2.0})
    assert said in words
    option = f" --run {tmp_path}/mine"
    assert f"genret search 'it'\"'\"'s a dog'{option}\n" in words
    assert f"genret index FOLDER{option} " in words and f"genret evaluate{option} --num-beams" in words


def test_a_hint_never_means_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The printed option finds the run from the folder where it is printed: a folder there is before a name."""
    settings = Settings(home=tmp_path / "home")
    here = tmp_path / "here"
    finished(settings.runs_dir / "avg-2", 20)
    run = finished(settings.runs_dir / "avg-1", 10)
    here.mkdir()
    monkeypatch.chdir(here)
    finished(Path("mine"), 5)
    assert run_option(Path("mine"), settings) == " --run mine"
    for name, each in (("avg-1", run), ("mine", here / "mine")):
        assert finished_run(Path(name), settings).resolve() == each.resolve()
    finished(Path("avg-1"), 1)
    assert finished_run(Path("avg-1"), settings).resolve() == here / "avg-1"
    assert run_option(run, settings) == f" --run {run}" and finished_run(run, settings) == run
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="there is no run directory mine"):
        finished_run(Path("mine"), settings)
