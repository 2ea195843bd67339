"""Files of a run directory, written atomically and read with bounds."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 2**31
"""A JSON file above this is not ours: the largest hold one text per image."""


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """The JSON document in a file. Raises `OSError` or `ValueError` only, whatever the file is or holds."""
    if not path.is_file():  # opening a pipe might never end
        raise FileNotFoundError(f"{path} is no file")
    if path.stat().st_size > max_bytes:
        raise ValueError(f"{path.name} is larger than {max_bytes / 1e6:.0f} MB")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None


def write_json(path: Path, value: Any) -> None:
    """Atomic."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False))


def write_text(path: Path, text: str) -> None:
    """Atomic."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Atomic, and safe if links exist there: the temporary file is new and its name cannot be predicted."""
    with replacing(path) as partial:
        partial.write_bytes(data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new, empty file next to `path`, which replaces it at the end; removed if writing fails."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # exclusive: never through a link
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Appends a line of JSON. An epoch's row replaces the one that a stopped training had written of the same epoch."""
    names, text = ("stage", "epoch", "event"), path.read_text(encoding="utf-8") if path.exists() else ""
    lines = text[: text.rfind("\n") + 1].splitlines()  # without an incomplete last one, of a full disk
    if (epoch := [row.get(name) for name in names])[1] is not None:
        lines = [line for line in lines if [json.loads(line).get(name) for name in names] != epoch]
    write_text(path, "".join(f"{line}\n" for line in [*lines, json.dumps(row)]))


def place_stage(source: Path, target: Path) -> None:
    """Copies a finished stage into a run directory, by hard links where possible: neither copy ever changes."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
