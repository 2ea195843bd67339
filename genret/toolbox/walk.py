"""Image files below folders."""

from __future__ import annotations

import io
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from genret.errors import GenretError
from genret.kit.images import CONVERT, IMAGE_SUFFIXES, suffix_of

_BEGINNING = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|II\*\0|MM\0\*|RIFF....WEBP|....ftyp(avif|avis|heic|heix|mif1|hevc)"
    rb"|BM.{4}\0{4}.{4}[\x0c(4@8l|]\0{3}|P[1-6]\s[\s\d#]|\0\0\0\x0cjP  \r\n",
    re.DOTALL,
)
"""How the files of formats that can be read begin."""

_SUFFIXES = IMAGE_SUFFIXES | CONVERT.keys()

Leave = Callable[[Path, str, bool], bool]
"""(a folder, the name of something in it, whether that is a folder) → whether a walk passes it over"""


def walk_images(paths: Iterable[str | Path], leave_out: Leave = lambda *of: False) -> Iterator[Path]:
    """Image files, each once: files as given, folders recursively in sorted order, but for what `leave_out` names.

    A file that is given directly is always included. In folders, hidden files are skipped, and files without a suffix
    are included if their first bytes are those of an image. Linked folders come last, each real folder once. A folder
    that may not be listed is included itself, so that reading it reports why.
    """
    seen: set[str] = set()
    entered: set[tuple[int, int]] = set()
    for given in paths:
        start = Path(given).expanduser().absolute()
        if not start.exists():
            raise GenretError(f"there is no file or folder {start}")
        for path in _walk(start, entered, leave_out) if start.is_dir() else [start]:
            if (known := str(path)) not in seen:
                seen.add(known)
                yield path


def printable(path: Path) -> str:
    r"""The path as text in any encoding: bytes that are not UTF-8 become `\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _walk(top: Path, entered: set[tuple[int, int]], leave_out: Leave) -> Iterator[Path]:
    """`entered`: real folders (device, inode) that were walked already; these here are added."""
    unlisted: list[Path] = []
    linked: deque[Path] = deque([top])
    while linked:
        start = linked.popleft()
        for here, folders, files in os.walk(start, onerror=lambda error: unlisted.append(Path(error.filename))):
            folder = Path(here)
            place = folder.stat()
            if (place.st_dev, place.st_ino) in entered:
                folders.clear()
                continue
            entered.add((place.st_dev, place.st_ino))
            shown = sorted(name for name in folders if not (name.startswith(".") or leave_out(folder, name, True)))
            links = [name for name in shown if os.path.islink(folder / name)]  # noqa: PTH114 (never raises)
            linked.extend(link for name in links if not _leads_up(link := folder / name))
            folders[:] = [name for name in shown if name not in links]
            pictures = (name for name in sorted(files) if _is_picture(folder, name))
            yield from (folder / name for name in pictures if not leave_out(folder, name, False))
    yield from unlisted


def _leads_up(link: Path) -> bool:
    """Whether a linked folder contains the link, which would be a loop."""
    return link.parent.resolve().is_relative_to(link.resolve())


def _is_picture(folder: Path, name: str) -> bool:
    """By its name; without a suffix, by its first bytes."""
    if name.startswith("."):
        return False
    if suffix := suffix_of(name):
        return suffix in _SUFFIXES
    path = folder / name
    try:
        with path.open("rb") if path.is_file() else io.BytesIO() as stream:  # opening a pipe might never end
            return _BEGINNING.match(stream.read(32)) is not None
    except OSError:
        return False
