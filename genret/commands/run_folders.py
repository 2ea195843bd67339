"""The run directory of a training (a new one, the one that `--run` or `--resume` names), and how commands name it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from genret.errors import UsageError
from genret.folders import find_run, is_finished, newest_run
from genret.settings import Settings


def new_run(recipes: Sequence[Path], settings: Settings) -> Path:
    """Creates `<home>/runs/<recipe>-<n>` with the next free number."""
    name = _name(recipes)
    settings.runs_dir.mkdir(parents=True, exist_ok=True)
    number = max(_numbers(name, settings), default=0)
    while True:
        number += 1
        run = settings.runs_dir / f"{name}-{number}"
        try:
            run.mkdir()
        except FileExistsError:  # another process was quicker
            continue
        return run


def fresh_run(run: Path) -> Path:
    """The directory that `--run` names for a new training: absent or empty."""
    if run.exists() and not run.is_dir():
        raise UsageError(f"--run {run} is a file; name a folder")
    if run.is_dir() and any(run.iterdir()):
        raise UsageError(f"--run {run} is in use already; add --resume to continue it or name another folder")
    run.mkdir(parents=True, exist_ok=True)
    return run


def resumable_run(run: Path | None, recipes: Sequence[Path], settings: Settings) -> Path:
    """The directory that `--resume` continues: the one named, else the newest of this recipe that is not finished."""
    if run is not None:
        if run.is_dir() and not (run / "recipe.yaml").exists():
            for leftover in run.glob(".recipe.yaml.*.partial"):  # interrupted while the first file was written
                leftover.unlink()
        empty = run.is_dir() and not any(run.iterdir())
        absent = not run.exists() and not (settings.runs_dir / run).is_dir()
        if recipes and (empty or absent):
            return fresh_run(run)  # interrupted before anything was written
        found = find_run(run, settings)
        if not (found / "recipe.yaml").is_file():
            raise UsageError(f"--resume: {found} holds no recipe.yaml, so no training began there; leave --resume out")
        return found
    if not recipes:
        raise UsageError("--resume needs the recipe or --run DIR")
    name = _name(recipes)
    numbers = sorted(_numbers(name, settings), reverse=True)
    unfinished = [run for n in numbers if not is_finished(run := settings.runs_dir / f"{name}-{n}")]
    if not unfinished:
        raise UsageError(f"--resume: no unfinished run of '{name}' in {settings.runs_dir}; leave --resume out")
    return unfinished[0]


def _name(recipes: Sequence[Path]) -> str:
    """`recipes/avg.yaml recipes/scale/flickr8k.yaml` → "avg-flickr8k"."""
    stems = (re.sub(r"[^A-Za-z0-9._]+", "-", recipe.stem).strip("-.") or "run" for recipe in recipes)
    return "-".join(stems)[:100]


def _numbers(name: str, settings: Settings) -> list[int]:
    pattern = re.compile(re.escape(name) + r"-(\d{1,9})")
    matches = (pattern.fullmatch(run.name) for run in settings.runs_dir.glob("*") if run.is_dir())
    return [int(match[1]) for match in matches if match]


def run_option(run: Path, settings: Settings) -> str:
    """The option that selects this run in further commands: ` --run DIR`, or nothing for the newest finished run."""
    newest = newest_run(settings)
    if newest is not None and newest.resolve() == run.resolve():
        return ""
    by_name = run.resolve().parent == settings.runs_dir.resolve() and not Path(run.name).exists()
    return f" --run {shlex.quote(run.name if by_name else str(run))}"
