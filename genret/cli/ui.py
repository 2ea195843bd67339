"""Talking to people: answers on standard output, everything else (progress, notes, warnings) on standard error."""

from __future__ import annotations

import json
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from types import TracebackType
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

SHOW_AFTER_SECONDS = 2.0
"""Steps shorter than this show no bar."""
LINE_EVERY_SECONDS = 30.0
"""Where standard error is no terminal, a step says how far it is this often."""


class Bar(Protocol):
    def advance(self, n: int = 1) -> None: ...


class Ui:
    """`with Ui(json) as ui`: inside, whatever libraries print goes to standard error."""

    def __init__(self, json: bool = False):
        self.json = json
        self._stdout: TextIO = sys.stdout
        self._err = Console(stderr=True, highlight=False)
        if not self._err.is_terminal:
            self._err.width = 160
        self._redirect = redirect_stdout(sys.stderr)
        self._bars: Progress | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Ui:
        self._stdout = sys.stdout
        self._redirect.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._redirect.__exit__(kind, error, trace)
        self._stdout.flush()

    # answers
    def document(self, value: Any) -> None:
        """One JSON document on a line of its own."""
        self._write(json.dumps(value, ensure_ascii=False, allow_nan=False))

    def result(self, text: str) -> None:
        """Text for people: an answer, but beside the point where JSON is asked for."""
        if self.json:
            self.note(text)
        else:
            self._write(text)

    def table(self, renderable: Any) -> None:
        """A rich renderable: an answer for people, beside the point where JSON is asked for."""
        if self.json:
            self._err.print(renderable)
            return
        console = Console(file=self._stdout, highlight=False)
        if not console.is_terminal:
            console.width = 200
        console.print(renderable)

    # everything else
    def note(self, text: str) -> None:
        self._err.print(text, markup=False)

    def warn(self, text: str) -> None:
        self._err.print(f"Warning: {text}", markup=False, style="yellow")

    @contextmanager
    def progress(self, label: str, total: int | None = None) -> Iterator[Bar]:
        """A bar with the time left, for steps that last; plain lines where nobody watches a terminal."""
        bar = _TerminalBar(self, label, total) if self._err.is_terminal else _LineBar(self, label, total)
        try:
            yield bar
        finally:
            bar.close()

    def _write(self, text: str) -> None:
        encoding = self._stdout.encoding or "utf-8"
        print(text.encode(encoding, "replace").decode(encoding), file=self._stdout, flush=True)

    def _show(self, label: str, total: int | None, done: int) -> TaskID:
        with self._lock:
            if self._bars is None:
                columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
                self._bars = Progress(*columns, console=self._err, transient=True, redirect_stdout=False)
                self._bars.start()
            return self._bars.add_task(label, total=total, completed=done)

    def _hide(self, task: TaskID) -> None:
        with self._lock:
            assert self._bars is not None
            self._bars.remove_task(task)
            if not self._bars.tasks:
                self._bars.stop()
                self._bars = None


class _TerminalBar:
    """Appears when the step has lasted `SHOW_AFTER_SECONDS`, disappears with its end."""

    def __init__(self, ui: Ui, label: str, total: int | None):
        self._ui, self._label, self._total = ui, label, total or None
        self._done = 0
        self._task: TaskID | None = None
        self._closed = False
        self._mutex = threading.Lock()
        self._timer = threading.Timer(SHOW_AFTER_SECONDS, self._appear)
        self._timer.daemon = True
        self._timer.start()

    def advance(self, n: int = 1) -> None:
        with self._mutex:
            self._done += n
            if self._task is not None and self._ui._bars is not None:
                self._ui._bars.advance(self._task, n)

    def close(self) -> None:
        self._timer.cancel()
        with self._mutex:
            self._closed = True
            if self._task is not None:
                self._ui._hide(self._task)
                self._task = None

    def _appear(self) -> None:
        with self._mutex:
            if not self._closed:
                self._task = self._ui._show(self._label, self._total, self._done)


class _LineBar:
    """Says now and then how far a long step is."""

    def __init__(self, ui: Ui, label: str, total: int | None):
        self._ui, self._label, self._total = ui, label, total or None
        self._done = self._first = 0
        self._start = self._said = time.monotonic()

    def advance(self, n: int = 1) -> None:
        now = time.monotonic()
        if self._done == 0 and now - self._start < 1.0:
            self._first = n  # a resumed step begins with what was done before, which says nothing about speed
        self._done += n
        if now - self._said >= LINE_EVERY_SECONDS:
            self._said = now
            self._ui.note(f"{self._label}: {self._done}{self._left(now)}")

    def _left(self, now: float) -> str:
        if self._total is None:
            return ""
        left = ""
        if self._first < self._done < self._total:
            seconds = (now - self._start) / (self._done - self._first) * (self._total - self._done)
            left = f", {int(seconds) // 60}:{int(seconds) % 60:02d} left"
        return f" of {self._total}{left}"

    def close(self) -> None:
        """Nothing to clear away."""


def plain(text: object) -> str:
    """Text from files and data sets, safe to print: no control characters, on one line."""
    return "".join(
        " " if character in "\n\r\t" else character
        for character in str(text)
        if character in "\n\r\t" or (unicodedata.category(character) not in ("Cc", "Cs") and character not in _BIDI)
    )


_BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
