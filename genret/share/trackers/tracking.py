"""Sends what a training logs to the trackers that were asked for. A tracker that fails never ends the training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from genret.api import Ui
from genret.errors import UsageError, did_you_mean, one_line
from genret.folders import read_summary
from genret.plugin.registry import Registries
from genret.run import Run
from genret.share.trackers.tracker import Tracker

PREFIX = "tracker:"
Log = Callable[[dict[str, Any]], None]


def known_trackers(registries: Registries) -> list[str]:
    return [name.removeprefix(PREFIX) for name in registries.function if name.startswith(PREFIX)]


def asked_for(names: str | None, registries: Registries) -> dict[str, Callable[[Run], Tracker]]:
    """`names`, separated by commas → what makes each; `UsageError` if one is unknown or its package is missing."""
    found = dict[str, Callable[[Run], Tracker]]()
    known = known_trackers(registries)
    for name in (names or "").replace(",", " ").split():
        if name not in known:
            near = did_you_mean(name, known)
            raise UsageError(f"--track {name}: there is no such tracker{near}; there are: {', '.join(known)}")
        start = registries.function.get(PREFIX + name)
        package = getattr(start, "package", None)
        if package is not None and find_spec(package) is None:
            raise UsageError(f"--track {name} needs the package '{package}': {start.install}")
        found[name] = start
    return found


@contextmanager
def tracked(run: Run, log: Log, ui: Ui) -> Iterator[Log]:
    """What a training logs by: `log`, which writes `metrics.jsonl`, and then the trackers of the setting `track`."""
    starts = asked_for(run.settings.track, run.registries)
    trackers = [_Guarded(name, start, run, ui) for name, start in starts.items()]

    def both(row: dict[str, Any]) -> None:
        log(row)
        if "event" not in row:
            figures = {key: value for key, value in row.items() if key not in ("stage", "epoch")}
            _tell(trackers, str(row.get("stage", "training")), figures, int(row.get("epoch") or 0))

    finished = False
    try:
        yield both
        if trackers:
            summary = read_summary(run.folder)
            _tell(trackers, "seconds", summary["seconds"], 0)
            _tell(trackers, "evaluation", _recalls(summary["evaluation"] or {}), 0)
        finished = True
    finally:
        for tracker in trackers:
            tracker.close(finished)


def _tell(trackers: Sequence[_Guarded], stage: str, figures: Mapping[str, Any], step: int) -> None:
    numbers = {key: float(value) for key, value in figures.items() if isinstance(value, int | float)}
    for tracker in trackers if numbers else ():
        tracker.log(stage, numbers, step)


def _recalls(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Recalls in percent, `recall_at_10`, with the dense search beside them, `two_tower/recall_at_10`."""
    return {
        f"{prefix}recall_at_{k}": value
        for key, prefix in (("recall", ""), ("two_tower", "two_tower/"), ("ceiling", "ceiling/"))
        for k, value in (evaluation.get(key) or {}).items()
    }


class _Guarded:
    """A tracker that is left out, with one warning, when it first fails."""

    def __init__(self, name: str, start: Callable[[Run], Tracker], run: Run, ui: Ui):
        self._name, self._ui = name, ui
        self._tracker: Tracker | None = None
        self._tracker = self._try(lambda: start(run))

    def log(self, stage: str, metrics: Mapping[str, float], step: int) -> None:
        if (tracker := self._tracker) is not None:
            self._try(lambda: tracker.log(stage, metrics, step))

    def close(self, finished: bool) -> None:
        if (tracker := self._tracker) is not None:
            self._try(lambda: tracker.close(finished))

    def _try(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except (Exception, SystemExit) as error:  # whatever the foreign package raises
            self._tracker = None
            self._ui.warn(
                f"the tracker '{self._name}' failed and is left out from here on "
                f"({type(error).__name__}: {one_line(error)}); metrics.jsonl goes on"
            )
