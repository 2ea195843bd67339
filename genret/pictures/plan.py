"""What must be done so that a catalog follows some folders: files held against what the catalog has, by content.

Nothing is decoded or written here. Files of known size and time are not even opened.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from genret.catalog.store import Catalog
from genret.kit.images import MAX_BYTES
from genret.pictures.seen import Seen, Stamp
from genret.toolbox.walk import printable


class File(NamedTuple):
    path: Path
    stamp: Stamp | None
    """None for what is no regular file of sane size: reading it says why"""


class Plan(NamedTuple):
    """Files by image id: their absolute path, printable."""

    fresh: dict[str, File]
    """To be decoded and encoded: unknown, or with a content of their own"""
    changed: frozenset[str]
    """Those of them that take the place of another picture"""
    moved: dict[str, str]
    """Known images whose file is elsewhere now: old id → new id"""
    unchanged: int
    missing: list[str]
    """Known images below the folders whose file is gone, apart from those that moved"""
    contents: dict[str, str]
    """sha256 of the files that were read for it"""


def file_at(path: Path) -> File:
    try:
        info = path.stat()
    except OSError:
        return File(path, None)
    if not stat.S_ISREG(info.st_mode) or info.st_size > MAX_BYTES:
        return File(path, None)
    return File(path, Stamp(info.st_size, info.st_mtime_ns, info.st_ino))


def make_plan(
    files: Mapping[str, File], folders: Iterable[Path], catalog: Catalog, seen: Seen, tick: Callable[[int], None]
) -> Plan:
    """`files`: all that was found below `folders` and beside them. `tick`: told of each file that was looked at."""
    added = catalog.added_images()
    stamped = [(name, file.stamp) for name, file in files.items() if file.stamp is not None]
    remembered = seen.contents(stamped)
    contents = dict(remembered)
    unchanged, differing, new = 0, list[str](), list[str]()
    for name, file in files.items():
        if name not in added:
            new.append(name)
        elif (sha256 := _content(name, file, contents)) is None or sha256 == added[name]:
            unchanged += sha256 is not None
            differing += [name] if sha256 is None else []  # it cannot be read: the retriever's turn to say why
        else:
            differing.append(name)
        tick(1)
    gone = [name for name in added if name not in files and os.path.isabs(name) and not os.path.lexists(name)]  # noqa: PTH117
    moved = _moves(files, added, contents, seen, _own(catalog, new), differing, gone)
    arrived = set(moved.values())
    fresh = {name: files[name] for name in (*differing, *new) if name not in arrived}
    starts = tuple(printable(folder.expanduser().absolute()).rstrip(os.sep) + os.sep for folder in folders)
    missing = [name for name in gone if name.startswith(starts) and name not in moved]
    read = {name: contents[name] for name in contents.keys() - remembered.keys()}
    return Plan(fresh, frozenset(differing) & fresh.keys(), moved, unchanged, missing, read)


def _own(catalog: Catalog, new: list[str]) -> list[str]:
    """Without those that are images of the data set: these do not move."""
    keys = catalog.keys_of(new)
    return [name for name, key in zip(new, keys.tolist(), strict=True) if key < 0]


def _moves(
    files: Mapping[str, File],
    added: Mapping[str, str],
    contents: dict[str, str],
    seen: Seen,
    new: list[str],
    differing: list[str],
    gone: list[str],
) -> dict[str, str]:
    """Old id → new id of pictures that are under another path now. Also in circles, where two files change places."""
    sources: dict[str, list[str]] = defaultdict(list)
    for name in (*gone, *differing):
        sources[added[name]].append(name)
    if not sources:
        return {}
    sizes = seen.sizes([name for names in sources.values() for name in names])
    all_known = len(sizes) == sum(map(len, sources.values()))
    likely = set(sizes.values())
    moved: dict[str, str] = {}
    for name in (*differing, *new):
        file = files[name]
        if file.stamp is None or (all_known and file.stamp.size not in likely):
            continue  # no picture that is missed has this size, so that it need not be read
        candidates = sources.get(_content(name, file, contents) or "")
        if candidates:
            alike = [old for old in candidates if Path(old).name == file.path.name]
            old = (alike or candidates)[0]
            candidates.remove(old)
            moved[old] = name
    return moved


def _content(name: str, file: File, contents: dict[str, str]) -> str | None:
    """The file's sha256, kept in `contents`; None if it cannot be read."""
    if name not in contents and file.stamp is not None:
        try:
            with file.path.open("rb") as stream:
                contents[name] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError:
            return None
    return contents.get(name)
