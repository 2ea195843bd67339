"""Which run directory a command uses. A run is finished when it contains `summary.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genret.errors import GenretError, UsageError, did_you_mean
from genret.kit.files import read_json
from genret.settings import Settings

FINISHED = "summary.json"


def is_finished(run: Path) -> bool:
    return (run / FINISHED).is_file()


def read_summary(run: Path) -> dict[str, Any]:
    """What training recorded at its end: `seconds` by stage, the final `evaluation`."""
    try:
        found = read_json(run / FINISHED)
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise GenretError(f"{run} is no finished run: its {FINISHED} is missing or damaged")
    return found


def finished_run(run: Path | None, settings: Settings) -> Path:
    """The run that a command reads: the one named, else the newest finished one."""
    if run is None:
        found = newest_run(settings)
        if found is None:
            raise GenretError(f"no finished run yet in {settings.runs_dir}; start with: genret train recipes/avg.yaml")
        return found
    found = find_run(run, settings)
    if not is_finished(found):
        raise GenretError(f"the run {found} is not finished; continue it with: genret train --run {found} --resume")
    return found


def newest_run(settings: Settings) -> Path | None:
    """The most recently finished run of `<home>/runs`."""
    ends = [(file.stat().st_mtime_ns, file.parent) for file in settings.runs_dir.glob(f"*/{FINISHED}")]
    return max(ends)[1] if ends else None


def find_run(run: Path, settings: Settings) -> Path:
    """The folder of this path, or else the run of this name in `<home>/runs` (docs/cli.md, "Where runs are")."""
    if run.is_dir():
        return run
    if run.exists():
        raise UsageError(f"--run {run} is a file; name a run directory")
    if (settings.runs_dir / run).is_dir() and run.name == str(run):
        return settings.runs_dir / run
    known = [known.name for known in settings.runs_dir.glob("*") if known.is_dir()]
    raise UsageError(f"there is no run directory {run}{did_you_mean(run.name, known)}")
