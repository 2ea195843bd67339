"""Errors that people see.

Every error that a person can cause is a `GenretError`: one clear sentence that names the file, key or image, and what
to do. The command line prints it without a traceback. Any other exception that escapes is a bug in genret.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GenretError(Exception):
    """The work failed for a reason outside genret's code (exit code 1)."""

    exit_code = 1


class UsageError(GenretError):
    """The command, recipe or option is wrong; nothing was started (exit code 2)."""

    exit_code = 2


class RecipeError(UsageError):
    """One or more errors in a recipe, all reported at once."""

    def __init__(self, faults: Iterable[str]):
        self.errors = list(faults)
        super().__init__("\n".join(self.errors))


class UnknownName(UsageError):
    """A name that is not registered or defined, with the nearest known one."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = ""):
        known = sorted(known)
        parts = [f"unknown {kind} '{name}'{did_you_mean(name, known)}"]
        if known:
            parts.append(f"known: {', '.join(known)}")
        if hint:
            parts.append(hint)
        super().__init__("; ".join(parts))


class BadImage(GenretError):
    """A file that is not a usable image. Long runs skip and report it; they never end because of it."""


def one_line(error: object, most: int = 200) -> str:
    """The message of another library's error, short enough for a sentence."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= most else text[: most - 3] + "..."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`", did you mean 'x'?"` for the known name nearest to `name`, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f", did you mean '{near[0]}'?" if near else ""
