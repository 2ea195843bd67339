"""Vectors on disk: one SQLite file per tower, a row per picture view or text, so that nothing is encoded twice.

Rows are committed batch by batch: what an interrupted encoding has computed is there the next time. A file that is
damaged is thrown away with a warning; it can always be computed again.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from genret.errors import GenretError

log = logging.getLogger(__name__)

FORMAT = 1
CHUNK = 500
"""Keys per statement; SQLite allows 999."""
WAIT_SECONDS = 60.0
"""How long a writer waits for another process to finish its batch."""
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)
SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL);
"""


class FeatureCache:
    """Vectors of one tower by key. Stored as float16, and as float32 where float16 would overflow."""

    def __init__(self, path: Path, tower_key: str = ""):
        self.path = path
        self.tower_key = tower_key
        self._connection: sqlite3.Connection | None = None
        self._width: int | None = None
        with self._errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open()

    @classmethod
    def of_tower(cls, folder: Path, tower_key: str) -> FeatureCache:
        """The cache of the tower that `tower_key` names, below `folder`."""
        name = hashlib.sha256(tower_key.encode()).hexdigest()[:24]
        return cls(folder / f"{name}.sqlite", tower_key)

    @property
    def width(self) -> int | None:
        """D, None while the cache is empty."""
        return self._width

    def present(self, keys: Iterable[str]) -> set[str]:
        """Which of `keys` need not be computed."""
        return set(self._select("key, length(vector)", keys, lambda size: size in self._sizes()))

    def get_many(self, keys: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """The vectors that are there, (D,) each; damaged ones are left out."""
        blobs = self._select("key, vector", keys, lambda blob: len(blob) in self._sizes())
        return {key: self._unpack(blob) for key, blob in blobs.items()}

    def put_many(self, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Adds vectors, all (D,); durable when this returns."""
        if not vectors:
            return
        width = len(next(iter(vectors.values())))
        assert all(vector.shape == (width,) for vector in vectors.values())
        if self._width is not None and self._width != width:
            self._rebuild(f"its vectors have {self._width} dimensions, the tower's {width}")
        rows = [(_digest(key), _pack(vector)) for key, vector in vectors.items()]
        if not self._write(width, rows):  # found damaged while writing: into the new file
            self._write(width, rows)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------ SQLite
    def _open(self) -> None:
        try:
            self._connect()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF not in DAMAGED:
                raise
            self._rebuild(str(error))

    def _connect(self) -> None:
        connection = sqlite3.connect(self.path, timeout=WAIT_SECONDS, isolation_level=None)
        self._connection = connection
        # the rollback journal, not WAL: old SQLite versions damage WAL files that two processes use
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(SCHEMA)
        facts = dict(connection.execute("SELECT name, value FROM facts"))
        said = facts.get("format"), facts.get("tower")
        if facts and said != (str(FORMAT), self.tower_key):
            error = sqlite3.DatabaseError("it belongs to another tower or version")
            error.sqlite_errorcode = sqlite3.SQLITE_FORMAT
            raise error
        width = facts.get("width", "")
        self._width = int(width) if width.isdigit() else None

    def _rebuild(self, reason: str) -> None:
        log.warning("the feature cache %s is unusable (%s) and starts anew", self.path, reason)
        self.close()
        for suffix in ("", "-journal", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self._connect()

    def _write(self, width: int, rows: Sequence[tuple[bytes, bytes]]) -> bool:
        with self._errors():
            assert self._connection is not None, "the cache is closed"
            facts = {"format": str(FORMAT), "tower": self.tower_key, "width": str(width)}
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())
                self._connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
                self._connection.execute("COMMIT")
            except BaseException as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if not _is_damage(error):
                    raise
                self._rebuild(str(error))
                return False
            self._width = width
            return True

    def _select(self, columns: str, keys: Iterable[str], usable) -> dict[str, bytes]:  # type: ignore[no-untyped-def]
        named = {_digest(key): key for key in keys}
        wanted, found = list(named), dict[str, bytes]()
        with self._errors():
            assert self._connection is not None, "the cache is closed"
            try:
                for start in range(0, len(wanted), CHUNK):
                    chunk = wanted[start : start + CHUNK]
                    marks = ",".join("?" * len(chunk))
                    rows = self._connection.execute(f"SELECT {columns} FROM vectors WHERE key IN ({marks})", chunk)
                    found |= {named[digest]: value for digest, value in rows if usable(value)}
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._rebuild(str(error))
                return {}
        return found

    def _sizes(self) -> tuple[int, int]:
        width = self._width or 0
        return 2 * width, 4 * width

    def _unpack(self, blob: bytes) -> NDArray[np.float32]:
        assert self._width is not None
        return np.frombuffer(blob, np.float16 if len(blob) == 2 * self._width else np.float32).astype(np.float32)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_BUSY:
                advice = "another process keeps it locked; wait for it to end"
            else:
                advice = f"{error}; free space there, or set GENRET_FEATURES to a folder that can be written"
            raise GenretError(f"the feature cache {self.path} cannot be used: {advice}") from error


def _is_damage(error: BaseException) -> bool:
    return isinstance(error, sqlite3.DatabaseError) and getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGED


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def _pack(vector: NDArray[np.float32]) -> bytes:
    with np.errstate(over="ignore"):
        half = vector.astype(np.float16)
    return (half if np.isfinite(half).all() else vector.astype(np.float32)).tobytes()
