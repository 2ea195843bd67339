"""Vectors on disk: one SQLite file per tower, one row per image view or text, so that nothing is encoded twice.

Rows are committed batch by batch, so an interrupted encoding continues where it stopped. A damaged file is deleted with
a warning, because its content can be computed again.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from genret.errors import GenretError

T = TypeVar("T")
log = logging.getLogger(__name__)

FORMAT = 2
CHUNK = 500
"""Keys per statement; SQLite allows 999."""
WAIT_SECONDS = 60.0
"""How long a writer waits for another process to finish its batch, in seconds."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL);
"""


class FeatureCache:
    """Vectors of one tower by key. Stored as float16, or as float32 if float16 would overflow."""

    width: int | None
    """D, None while the cache is empty."""

    def __init__(self, path: Path, tower_key: str = ""):
        self.path = path
        self.tower_key = tower_key
        self._guarded(self._connect)

    @classmethod
    def of_tower(cls, folder: Path, tower_key: str) -> Self:
        """The cache of the tower with key `tower_key`, below `folder`."""
        name = hashlib.sha256(tower_key.encode()).hexdigest()[:24]
        return cls(folder / f"{name}.sqlite", tower_key)

    def present(self, keys: Iterable[str]) -> set[str]:
        """Which of `keys` are already cached."""
        return set(self._select("key, NULL", keys))

    def get_many(self, keys: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """The cached vectors, (D,) each; damaged ones are left out."""
        blobs, width = self._select("key, vector", keys), self.width or 1
        return {key: np.frombuffer(b, f"f{len(b) // width}").astype(np.float32) for key, b in blobs.items()}

    def put_many(self, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Adds vectors, all (D,); durable when this returns."""
        if not vectors:
            return
        (width,) = {len(vector) for vector in vectors.values()}
        facts = {"format": str(FORMAT), "tower": self.tower_key, "width": str(width)}
        rows = [(_digest(key), _pack(vector)) for key, vector in vectors.items()]

        def write() -> bool:
            if self.width not in (None, width):
                raise sqlite3.DatabaseError(f"its vectors have {self.width} dimensions, the tower's {width}")
            with self._connection:  # commits or rolls back
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())
                self._connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
            self.width = width
            return True

        if not self._guarded(write):  # damage was found while writing: write to the new file
            self._guarded(write)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------ SQLite
    def _connect(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(self.path, timeout=WAIT_SECONDS, isolation_level=None)
        # the rollback journal, not WAL: old SQLite versions damage WAL files that two processes use
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(SCHEMA)
        facts = dict(self._connection.execute("SELECT name, value FROM facts"))
        if facts and (facts.get("format"), facts.get("tower")) != (str(FORMAT), self.tower_key):
            raise sqlite3.DatabaseError("it belongs to another tower or version")
        width = facts.get("width", "")
        self.width = int(width) if width.isdecimal() else None

    def _select(self, columns: str, keys: Iterable[str]) -> dict[str, Any]:
        named = {_digest(key): key for key in keys}
        wanted, width = list(named), self.width or 0

        def read() -> dict[str, Any]:
            found: dict[str, Any] = {}
            for start in range(0, len(wanted), CHUNK):
                chunk = wanted[start : start + CHUNK]
                marks = ",".join("?" * len(chunk))
                query = f"SELECT {columns} FROM vectors WHERE key IN ({marks}) AND length(vector) IN (?, ?)"
                rows = self._connection.execute(query, [*chunk, 2 * width, 4 * width])
                found |= {named[digest]: value for digest, value in rows}
            return found

        return self._guarded(read) or {}

    def _guarded(self, work: Callable[[], T]) -> T | None:
        """The result of `work`; None if the file is damaged; it is then replaced."""
        try:
            try:
                return work()
            except sqlite3.DatabaseError as error:
                if type(error) is not sqlite3.DatabaseError:  # subclasses are temporary errors, not damage
                    raise
                log.warning("the feature cache %s is unusable (%s) and starts anew", self.path, error)
                self.close()
                for suffix in ("", "-journal", "-wal", "-shm"):
                    self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
                self._connect()
                return None
        except (sqlite3.Error, OSError) as error:
            advice = f"{error}; free space there, or set GENRET_FEATURES to a folder that can be written"
            if "locked" in str(error):
                advice = "another process keeps it locked; wait for it to end"
            raise GenretError(f"the feature cache {self.path} cannot be used: {advice}") from error


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def _pack(vector: NDArray[np.float32]) -> bytes:
    with np.errstate(over="ignore"):
        half = vector.astype(np.float16)
    return (half if np.isfinite(half).all() else vector.astype(np.float32)).tobytes()
