"""The user interface: results on standard output, everything else (progress, notes, warnings) on standard error.

All output is cleaned here: foreign names and captions cannot send escape sequences to the terminal.
"""

from __future__ import annotations

import codecs
import io
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, NamedTuple, TextIO

from rich.console import Console, ConsoleOptions
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.segment import Segment

from genret.api import Bar
from genret.cli.failures import forgive
from genret.kit.text import clean

SHOW_AFTER_SECONDS = 2.0
"""Steps shorter than this show no bar, in seconds."""
LINE_EVERY_SECONDS = 30.0
"""If standard error is not a terminal, progress is reported at this interval, in seconds."""


class Ui:
    """`with Ui(json) as ui`: inside, output of libraries goes to standard error."""

    def __init__(self, json: bool = False):
        self.json = json
        self._out: TextIO = sys.stdout or io.StringIO()  # None if the program was started without one
        self._err = Console(stderr=True, highlight=False, emoji=False)
        if not self._err.is_terminal:
            self._err.width = 160
        self._redirect = redirect_stdout(sys.stderr)
        self._bars: Progress | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Ui:
        self._out = sys.stdout or self._out
        forgive(self._out)
        self._redirect.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._redirect.__exit__(*error)
        self._out.flush()

    # answers
    def document(self, value: Any) -> None:
        """One JSON document on a line of its own."""
        everything = codecs.lookup(self._out.encoding or "utf-8").name == "utf-8"
        self._write(json.dumps(value, ensure_ascii=not everything, allow_nan=False))

    def result(self, text: str) -> None:
        """Text for people: a result, not shown if JSON is requested."""
        if self.json:
            self.note(text)
        else:
            self._write(clean(text, keep_lines=True))

    def table(self, renderable: Any) -> None:
        """A rich renderable: a result for people, not shown if JSON is requested."""
        console = self._err
        if not self.json:
            console = Console(file=self._out, highlight=False)
            if not console.is_terminal:
                console.width = 200
        console.print(_Clean(renderable))

    # everything else
    def note(self, text: str) -> None:
        self._err.print(clean(text, keep_lines=True), markup=False)

    def warn(self, text: str) -> None:
        self._err.print(f"Warning: {clean(text, keep_lines=True)}", markup=False, style="yellow")

    @contextmanager
    def progress(self, label: str, total: int | None = None) -> Iterator[Bar]:
        """A bar with the remaining time, for long steps; plain lines if standard error is not a terminal."""
        if not self._err.is_terminal:
            yield _Lines(self, label, total)
            return
        with self._lock:
            if self._bars is None:
                columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
                self._bars = Progress(*columns, console=self._err, transient=True, redirect_stdout=False)
            bars = self._bars
            task = bars.add_task(label, total=total or None, visible=False)
        timer = threading.Timer(SHOW_AFTER_SECONDS, self._show, (bars, task))
        timer.daemon = True
        timer.start()
        try:
            yield _TaskBar(bars, task)
        finally:
            timer.cancel()
            self._end(bars, task)

    def _show(self, bars: Progress, task: TaskID) -> None:
        with self._lock:
            if task in bars.task_ids:
                bars.update(task, visible=True)
                bars.start()

    def _end(self, bars: Progress, task: TaskID) -> None:
        with self._lock:
            bars.remove_task(task)
            if not bars.tasks:
                if bars.live.is_started:
                    bars.stop()
                self._bars = None  # restarting a stopped bar would erase lines above it

    def _write(self, text: str) -> None:
        print(text, file=self._out, flush=True)


class _Clean(NamedTuple):
    """A renderable whose text is safe to show; styles are rich's own and stay."""

    inner: Any

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self.inner, options):
            yield segment if segment.control else segment._replace(text=clean(segment.text, keep_lines=True))


class _TaskBar(NamedTuple):
    bars: Progress
    task: TaskID

    def advance(self, n: int = 1) -> None:
        self.bars.advance(self.task, n)


class _Lines:
    """Reports from time to time how far a long step is."""

    def __init__(self, ui: Ui, label: str, total: int | None):
        self._ui, self._label, self._total = ui, label, total or None
        self._done = self._first = 0
        self._start = self._said = time.monotonic()

    def advance(self, n: int = 1) -> None:
        now = time.monotonic()
        if self._done == 0:  # what was before, in an earlier session or ahead of the first step, is no speed
            self._first, self._start = n, now
        self._done += n
        if now - self._said >= LINE_EVERY_SECONDS:
            self._said = now
            self._ui.note(f"{self._label}: {self._done}{self._left(now)}")

    def _left(self, now: float) -> str:
        if self._total is None:
            return ""
        left = ""
        if self._first < self._done < self._total:
            seconds = int((now - self._start) / (self._done - self._first) * (self._total - self._done))
            left = f", {seconds // 60}:{seconds % 60:02d} left"
        return f" of {self._total}{left}"
