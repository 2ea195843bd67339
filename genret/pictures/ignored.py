"""What a walk passes over: `.genretignore` files and `--ignore`, in the syntax of `.gitignore`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pathspec import GitIgnoreSpec

from genret.errors import UsageError

FILE = ".genretignore"
MAX_BYTES = 2**20


class Ignored:
    """For walks below some folders: call it with a folder, a name in it, and whether that is a folder.

    As with git, the last pattern that fits decides, patterns of deeper folders come after those of outer ones, and
    nothing below an ignored folder is looked at. Patterns given directly come last, relative to the walked folder.
    """

    def __init__(self, roots: Sequence[Path], patterns: Sequence[str] = ()):
        self._roots = [root.expanduser().absolute() for root in roots]
        self._given = _spec(patterns, "--ignore")
        self._read = cache(lambda folder: _patterns_in(folder / FILE))
        self._specs = cache(self._all_specs)

    def __call__(self, folder: Path, name: str, is_folder: bool) -> bool:
        for start, spec in self._specs(folder):
            path = (folder / name).relative_to(start).as_posix() + ("/" if is_folder else "")
            if (fits := spec.check_file(path).include) is not None:
                return fits
        return False

    def _all_specs(self, folder: Path) -> list[tuple[Path, GitIgnoreSpec]]:
        """The patterns for what is in a folder, and where they come from; the first that fit decide."""
        below = [root for root in self._roots if folder.is_relative_to(root)]
        if not below:
            return []
        root = max(below, key=lambda one: len(one.parts))
        folders = (folder, *folder.parents)[: 1 + len(folder.parts) - len(root.parts)]
        specs = ((root, self._given), *((one, self._read(one)) for one in folders))
        return [(one, spec) for one, spec in specs if spec is not None]


def _patterns_in(file: Path) -> GitIgnoreSpec | None:
    if not file.is_file():
        return None
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise UsageError(f"{file} has more than {MAX_BYTES:,} bytes")
        return _spec(text.decode("utf-8-sig").splitlines(), str(file))
    except UnicodeDecodeError:
        raise UsageError(f"{file} is no UTF-8 text") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}") from error


def _spec(patterns: Sequence[str], where: str) -> GitIgnoreSpec | None:
    if not patterns:
        return None
    try:
        return GitIgnoreSpec.from_lines(patterns)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error
