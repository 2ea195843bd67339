"""What the home folder keeps to save time: how large it is, and what of it can be removed, because it is made again.

Runs, catalogs, thumbnails and whatever genret did not write itself are never removed; links are not followed.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from genret.guide.doctor.runs import unfinished
from genret.settings import Settings

FEATURE_FILE = re.compile(r"[0-9a-f]{24}\.sqlite(-journal|-wal|-shm)?")
STAGE = re.compile(r"[0-9a-f]{20}(\.partial|\.damaged)?")
LEFTOVER = re.compile(r"\..+\.[0-9a-f]{16}\.partial")
"""What a process that was killed left of a file that it was writing."""
FORGOTTEN = 24 * 3600
"""Seconds after which such a file counts as left over."""


class Size(NamedTuple):
    files: int
    bytes: int


class Cache(NamedTuple):
    name: str
    path: Path
    files: int
    bytes: int


class Removable(NamedTuple):
    what: str
    paths: list[Path]


def size_of(paths: Iterable[Path]) -> Size:
    """Files below the paths and their bytes; files that cannot be seen count as none."""
    found = [path.lstat().st_size for path in _files(paths)]
    return Size(len(found), sum(found))


def freed(paths: Iterable[Path]) -> int:
    """The bytes that removing the paths gives back: a file with links elsewhere (in a run) gives none."""
    links = dict[tuple[int, int], list[int]]()
    for path in _files(paths):
        facts = path.lstat()
        links.setdefault((facts.st_dev, facts.st_ino), [facts.st_nlink, facts.st_size, 0])[2] += 1
    return sum(size for count, size, seen in links.values() if seen >= count)


def caches(settings: Settings) -> list[Cache]:
    """What lies where, with its size."""
    runs = settings.runs_dir
    places = [
        ("features", settings.features_dir, [settings.features_dir]),
        ("stages", settings.artifacts_dir, [settings.artifacts_dir]),
        ("weights", settings.weights_dir, [settings.weights_dir]),
        ("tries", runs, _below(runs, "trie")),
        ("thumbnails", runs, _below(runs, "thumbnails")),
        ("runs in all", runs, [runs]),
        ("runs of the hub", settings.home / "pulled", [settings.home / "pulled"]),
    ]
    return [Cache(name, path, *size_of(paths)) for name, path, paths in places]


def removable(settings: Settings) -> list[Removable]:
    """What can be made again: only files that bear the names of genret's caches."""
    keeps_checkpoints = any(unfinished(settings.runs_dir))
    found = [
        Removable(
            "features: vectors of images and texts, encoded again when needed",
            [path for path in _entries(settings.features_dir) if FEATURE_FILE.fullmatch(path.name)],
        ),
        Removable(
            "stages: copies of trained parts, which finished runs have themselves",
            list(_stages(settings.artifacts_dir, keeps_checkpoints)),
        ),
        Removable("weights: converted from installed packages, as they will be again", _entries(settings.weights_dir)),
        Removable("tries: built from the catalogs", _below(settings.runs_dir, "trie")),
        Removable("leftovers of interrupted writing", list(_leftovers(settings.runs_dir))),
    ]
    return [one for one in found if one.paths]


def remove(found: Iterable[Removable]) -> int:
    """Removes them; returns the bytes that became free. Stages that a process is making stay."""
    bytes_free = 0
    for one in found:
        for path in one.paths:
            gain = freed([path])
            if STAGE.fullmatch(path.name) and _is_folder(path):
                lock = path.with_suffix(".lock")
                try:
                    with FileLock(lock, timeout=0):
                        shutil.rmtree(path)
                except Timeout:
                    continue
                lock.unlink(missing_ok=True)
            elif _is_folder(path):
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            bytes_free += gain
    return bytes_free


def _stages(artifacts: Path, keeps_checkpoints: bool) -> Iterator[Path]:
    for stage in _entries(artifacts):
        for path in _entries(stage):
            if STAGE.fullmatch(path.name) and not (keeps_checkpoints and path.suffix == ".partial"):
                yield path


def _leftovers(runs: Path) -> Iterator[Path]:
    before = time.time() - FORGOTTEN
    for path in _files([runs]):
        if LEFTOVER.fullmatch(path.name) and path.lstat().st_mtime < before:
            yield path


def _below(runs: Path, name: str) -> list[Path]:
    return [path for run in _entries(runs) for path in [run / name] if _is_folder(path)]


def _entries(folder: Path) -> list[Path]:
    """What lies in a real folder, sorted; nothing where there is none or it cannot be read."""
    with suppress(OSError):
        return sorted(folder.iterdir())
    return []


def _is_folder(path: Path) -> bool:
    """A real one, not a link; no if it lies in a folder that cannot be read."""
    return os.path.isdir(path) and not os.path.islink(path)  # noqa: PTH112, PTH114 (Path.is_dir raises an error there)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if _is_folder(path):
            for folder, _, names in os.walk(path):
                yield from (Path(folder, name) for name in names)
        elif path.is_symlink() or path.exists():
            yield path
