"""Runs many commands of the program in one process of its own: a start takes longer than most commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

PROGRAM = """
import contextlib, io, json, sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder)]  # PYTHONPATH says what there is
from genret.cli import main

for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(json.loads(line))
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


class Done(NamedTuple):
    code: int
    out: str
    err: str


class OneProcess:
    """`environment` is the process's own; its PYTHONPATH leads to genret and to plugins."""

    def __init__(self, environment: Mapping[str, str], folder: Path):
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM],
            env=dict(environment),
            cwd=folder,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __call__(self, *words: object) -> Done:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([*map(str, words)]) + "\n")
        self._process.stdin.flush()
        return Done(*json.loads(self._process.stdout.readline()))

    def __enter__(self) -> OneProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate(timeout=60)


def lent(**changes: object) -> dict[str, str]:
    """The environment of such a process: this one's, with changes."""
    return os.environ | {name: str(value) for name, value in changes.items()}
