"""Standard output is reserved for a command's result: output of imports goes to standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress


@contextmanager
def output_aside() -> Iterator[None]:
    """Covers Python's `print` and writes to descriptor 1 by libraries in other languages."""
    with ExitStack() as restored:
        restored.enter_context(redirect_stdout(sys.stderr))
        with suppress(OSError):  # a program without standard output
            answers = os.dup(1)
            restored.callback(os.close, answers)
            os.dup2(2, 1)
            restored.callback(os.dup2, answers, 1)
        yield
