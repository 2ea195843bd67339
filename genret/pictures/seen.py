"""Which files have been read before, by size and time, so that unchanged ones need not be read again.

A small SQLite file in the run's directory. It only saves time: what is in the catalog does not depend on it, and it
may be deleted. As in git's index, an entry that was written within two seconds of the file's time is not trusted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

FILE = "files.sqlite"
AT_A_TIME = 500
_COARSEST = 2 * 10**9
"""Nanoseconds: the resolution of times on FAT."""
_TABLE = """CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, inode INTEGER,
    sha256 TEXT, checked_ns INTEGER) WITHOUT ROWID"""


class Stamp(NamedTuple):
    """What changes whenever a file does."""

    size: int
    mtime_ns: int
    inode: int


class Seen:
    """The contents of known files by path and stamp. Trouble with its file is no trouble: then files are read again."""

    def __init__(self, folder: Path):
        self._file = folder / FILE

    def contents(self, files: Sequence[tuple[str, Stamp]]) -> dict[str, str]:
        """By path, the sha256 of those files that have not changed since they were stored."""
        found: dict[str, str] = {}
        with suppress(sqlite3.Error, OSError):
            if not self._file.is_file():
                return found
            with closing(sqlite3.connect(self._file)) as database:
                for start in range(0, len(files), AT_A_TIME):
                    some = dict(files[start : start + AT_A_TIME])
                    marks = ", ".join("?" * len(some))
                    rows = database.execute(f"SELECT * FROM files WHERE path IN ({marks})", [*some])
                    for path, size, mtime_ns, inode, sha256, checked_ns in rows:
                        if Stamp(size, mtime_ns, inode) == some[path] and mtime_ns + _COARSEST < checked_ns:
                            found[path] = sha256
        return found

    def sizes(self, paths: Sequence[str]) -> dict[str, int]:
        """By path, the size that a file had when it was stored."""
        found: dict[str, int] = {}
        with suppress(sqlite3.Error, OSError):
            if not self._file.is_file():
                return found
            with closing(sqlite3.connect(self._file)) as database:
                for start in range(0, len(paths), AT_A_TIME):
                    some = paths[start : start + AT_A_TIME]
                    marks = ", ".join("?" * len(some))
                    found |= dict(database.execute(f"SELECT path, size FROM files WHERE path IN ({marks})", some))
        return found

    def store(self, files: Sequence[tuple[str, Stamp, str]], checked_ns: int, gone: Sequence[str] = ()) -> None:
        """`files`: path, stamp and sha256. `checked_ns`: a time before the stamps were taken."""
        if not files and not gone:
            return
        with suppress(OSError):
            try:
                self._write(files, checked_ns, gone)
            except sqlite3.DatabaseError as error:  # damaged, or of another make: it is written anew next time
                if not isinstance(error, sqlite3.OperationalError):
                    self._file.unlink(missing_ok=True)

    def _write(self, files: Iterable[tuple[str, Stamp, str]], checked_ns: int, gone: Iterable[str]) -> None:
        with closing(sqlite3.connect(self._file, timeout=10)) as database, database:
            database.execute(_TABLE)
            database.executemany("DELETE FROM files WHERE path = ?", [(path,) for path in gone])
            rows = ((path, *stamp, sha256, checked_ns) for path, stamp, sha256 in files)
            database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", rows)
