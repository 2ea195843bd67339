"""How long work shows its progress, notes and warnings."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol


class Bar(Protocol):
    """One step of long work."""

    def advance(self, n: int = 1) -> None: ...


class Progress(Protocol):
    """Shows the steps of long work."""

    def __call__(self, label: str, total: int | None = None) -> AbstractContextManager[Bar]: ...


class Ui(Protocol):
    """What people see while work runs; results are its return values."""

    def progress(self, label: str, total: int | None = None) -> AbstractContextManager[Bar]: ...

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def table(self, renderable: Any) -> None: ...

    def result(self, text: str) -> None: ...


class Screen(Ui, AbstractContextManager[Any], Protocol):
    """The `Ui` of a command; within it, standard output has nothing but results."""

    json: bool

    def document(self, value: Any) -> None: ...


class Silent:
    """A `Ui` that shows nothing, for programs and tests."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def advance(self, n: int = 1) -> None:
        return None

    def progress(self, label: str, total: int | None = None) -> Silent:
        return self

    def note(self, text: str) -> None:
        return None

    warn = note
    result = note

    def table(self, renderable: Any) -> None:
        return None
