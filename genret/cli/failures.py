"""The error messages of commands: one sentence on standard error, and the exit code."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import typer

from genret.errors import GenretError, RecipeError, one_line
from genret.kit.text import clean

_FULL = ("No space left on device", "database or disk is full")
_READ_ONLY = ("attempt to write a readonly database", "unable to open database file", "Read-only file system")


@contextmanager
def friendly(debug: bool, run: Callable[[], Path | None] = lambda: None) -> Iterator[None]:
    """Turns exceptions into a sentence and an exit code; `debug` adds the traceback."""
    try:
        yield
    except (typer.Exit, typer.Abort, SystemExit):
        raise
    except BrokenPipeError:
        _close_output()
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        folder = run()
        hint = f" Continue with: genret train --run {folder} --resume" if folder else ""
        _say(f"\nInterrupted.{hint}")
        raise SystemExit(130) from None
    except Exception as error:
        if type(error).__module__.startswith(("typer.", "click.")):  # usage errors, which typer reports itself
            raise
        if debug:
            traceback.print_exc()
        _say(f"Error: {explain(error)}")
        _drop_unwritable_output()
        raise SystemExit(error.exit_code if isinstance(error, GenretError) else 1) from None


def explain(error: BaseException) -> str:
    """One sentence for people; several errors of a recipe are listed on lines of their own."""
    if isinstance(error, RecipeError) and len(error.errors) > 1:
        faults = "\n".join(f"  {clean(fault)}" for fault in error.errors)
        return f"the recipe has {len(error.errors)} faults:\n{faults}"
    if isinstance(error, GenretError):
        return str(error)
    text = str(error)
    where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or any(phrase in text for phrase in _FULL):
        return f"the disk is full{where}; make room and run the command again (train: with --resume)"
    if isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno == errno.EROFS):
        return f"no permission to read or write{where}; choose another folder (--run, GENRET_HOME) or change its rights"
    if isinstance(error, NotADirectoryError | FileExistsError):
        return f"there is a file where a folder is needed{where}; choose another folder (--run, GENRET_HOME)"
    if any(phrase in text for phrase in _READ_ONLY):
        return f"a file cannot be written: {one_line(text, 300)}; check its folder's rights"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory; lower the recipe's batch sizes"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}{where}"
    return f"unexpected {type(error).__name__}: {one_line(text, 300)} (--debug shows where)"


def forgive(stream: Any) -> None:
    """Characters that the stream's encoding lacks are shown as `?` instead of failing; other streams are unchanged."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")


def _say(text: str) -> None:
    print(clean(text, keep_lines=True), file=sys.stderr, flush=True)


def _drop_unwritable_output() -> None:
    """Output that could not be written (a full disk) must not be retried at exit, which would hide the exit code."""
    with suppress(ValueError, AttributeError):  # closed already, or from the beginning
        try:
            sys.stdout.flush()
        except OSError:
            _close_output()


def _close_output() -> None:
    """The reader is gone: the interpreter's last flush must not fail. Only real files are flushed."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
