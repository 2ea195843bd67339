"""Recipe files and `--set` overrides merged into plain data, with the origin of each value.

Implements the merging rule only; values are validated elsewhere.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any

from genret.errors import UsageError
from genret.recipe.plain_yaml import Keys, Parsed, parse


class Draft:
    """`values`: the merged data; `errors`: what is wrong so far, each with its file and line or override."""

    def __init__(self, slots: Container[str]):
        self.slots = slots
        """Top-level keys that hold one component: a mapping with `type` replaces it."""
        self.values: dict[str, Any] = {}
        self.origins: dict[Keys, str] = {}
        self.errors: list[str] = []

    def add_error(self, path: Keys, message: str) -> None:
        known = next((self.origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.origins), "recipe")
        self.errors.append(f"{known}: {'.'.join(map(str, path))}: {message}")

    def read_file(self, file: Path) -> None:
        if file.is_fifo() and not file.is_relative_to("/dev"):  # opening a named pipe might never end
            self.errors.append(f"{file} is a named pipe, not a recipe file")
            return
        try:
            with file.open(encoding="utf-8-sig") as stream:
                parsed = parse(stream.read(1_000_000))
        except FileNotFoundError:
            self.errors.append(f"there is no recipe file {file}")
        except IsADirectoryError:
            self.errors.append(f"{file} is a folder, not a recipe file")
        except UnicodeDecodeError:
            self.errors.append(f"{file} is no text file")
        except OSError as error:
            self.errors.append(f"{file} cannot be read: {error.strerror or error}")
        except UsageError as error:
            self.errors.append(f"{file}: {error}")
        else:
            if isinstance(parsed.value, dict):
                self.merge(parsed.value, lambda path: f"{file}:{_line(parsed, path)}")
            elif parsed.value is not None:
                self.errors.append(f"{file} is no recipe: it needs `key: value` lines, such as `dataset: folder`")

    def read_override(self, override: str) -> None:
        key, equals, text = override.partition("=")
        keys = [part.strip() for part in key.split(".")]
        if not equals or not all(keys):
            self.errors.append(f"--set {override}: it should look like key=value, e.g. loss.align.weight=0")
            return
        try:
            value = parse(text).value
        except UsageError as error:
            self.errors.append(f"--set {override}: {error}")
            return
        for part in reversed(keys):
            value = {part: value}
        self.merge(value, lambda path: f"--set {override}")

    def merge(self, update: Mapping[str, Any], origin: Callable[[Keys], str]) -> None:
        for key, new in update.items():
            self.values[key] = self._merged((key,), self.values.get(key), new, origin)

    def _merged(self, path: Keys, old: Any, new: Any, origin: Callable[[Keys], str]) -> Any:
        is_slot = len(path) == 1 and path[0] in self.slots
        if is_slot and isinstance(new, str):
            new = {"type": new}
        if isinstance(old, dict) and isinstance(new, dict) and not (is_slot and "type" in new):
            self.origins.setdefault(path, origin(path))
            return old | {key: self._merged((*path, key), old.get(key), value, origin) for key, value in new.items()}
        for inside in [known for known in self.origins if known[: len(path)] == path]:
            del self.origins[inside]
        self._note_origins(path, new, origin)
        return copy.deepcopy(new)

    def _note_origins(self, path: Keys, value: Any, origin: Callable[[Keys], str]) -> None:
        self.origins[path] = origin(path)
        if isinstance(value, dict):
            for key, inner in value.items():
                self._note_origins((*path, key), inner, origin)


def _line(parsed: Parsed, path: Keys) -> int:
    """Where the value at `path` is given; for a slot given as a scalar, `type` has the slot's place."""
    return next((parsed.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in parsed.lines), 1)
