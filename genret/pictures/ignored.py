"""What a walk passes over: `.genretignore` files and `--ignore`, in the syntax of `.gitignore`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pathspec import GitIgnoreSpec

from genret.errors import UsageError

FILE = ".genretignore"
MAX_BYTES = 2**20


class Ignored:
    """For walks below some folders: call it with a path and whether that is a folder.

    As with git, the last pattern that fits decides, patterns of deeper folders come after those of outer ones, and
    nothing below an ignored folder is looked at. Patterns given directly come last, relative to the walked folder.
    """

    def __init__(self, roots: Sequence[Path], patterns: Sequence[str] = ()):
        self._roots = [root.expanduser().absolute() for root in roots]
        self._given = _spec(patterns, "--ignore")
        self._of_folder: dict[Path, GitIgnoreSpec | None] = {}

    def __call__(self, path: Path, is_folder: bool) -> bool:
        below = [root for root in self._roots if path.is_relative_to(root)]
        if not below:
            return False
        root = max(below, key=lambda one: len(one.parts))
        folders = [root, *(root.joinpath(*path.relative_to(root).parts[:n]) for n in range(1, _depth(path, root)))]
        specs = [(root, self._given), *((folder, self._read(folder)) for folder in reversed(folders))]
        for folder, spec in specs:
            if spec is not None:
                name = path.relative_to(folder).as_posix() + ("/" if is_folder else "")
                if (fits := spec.check_file(name).include) is not None:
                    return fits
        return False

    def _read(self, folder: Path) -> GitIgnoreSpec | None:
        if folder not in self._of_folder:
            self._of_folder[folder] = _patterns_in(folder / FILE)
        return self._of_folder[folder]


def _depth(path: Path, root: Path) -> int:
    return len(path.parts) - len(root.parts)


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
