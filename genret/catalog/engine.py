"""Opens a database: SQLite set up for one writer and many readers, and errors in sentences that name the file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from filelock import FileLock, Timeout
from sqlalchemy import URL, Connection, Engine, StaticPool, create_engine, event, inspect, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DataError, NoSuchModuleError, OperationalError

from genret.errors import GenretError, UsageError

BUSY_TIMEOUT = 30.0
"""Seconds that a connection waits for another's write to end."""
LOCK = ".catalog.lock"
"""The lock file of a catalog's writer, next to the catalog."""
_WRITE = "genret_write"
_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode
_FAULTS = {
    "disk is full|No space left": "cannot write {}: the disk is full; make room and try again, nothing was changed",
    "disk I/O error": "cannot read or write {}: the disk may be full or failing; make room and try again",
    "readonly|read-only": "cannot write {}: it may only be read; check the rights of the file and its folder",
    "not a database|malformed|encrypted": "{} is damaged or no catalog; restore a copy of it or train anew",
    "no such table|no such column|does not exist": "{} is no catalog of genret",
    "locked|lock timeout": "{} is being written by another process; try again when it is done",
    "unable to open": "cannot open {}; check that its folder exists and may be written",
    "parser stack overflow": "the filter nests too deeply for {}; write it with fewer parentheses and 'not's",
    "": "cannot use {}",
}
"""Regular expressions for a database's messages, and the sentence for each."""


class Database(NamedTuple):
    engine: Engine
    path: Path | None
    """The SQLite file; None for databases elsewhere and in memory."""
    name: str
    """The name shown to people: the path, or the URL without its password."""
    writable: bool = True

    def tables(self) -> list[str]:
        """The names of its tables; none if there is no file yet."""
        if self.path is not None and not self.path.exists():
            return []
        with friendly(self.name):
            return inspect(self.engine).get_table_names()


def as_json(value: Any) -> str:
    """JSON with unescaped letters of all scripts, so that SQL finds keys by them; lone surrogates are escaped."""
    return _encode(value).encode(errors="backslashreplace").decode()


def connect_to(where: str | Path) -> Database:
    """A path is a SQLite file; a string with `://` is an SQLAlchemy URL. Opens nothing yet."""
    if isinstance(where, str) and "://" in where:
        try:
            url = make_url(where)
            if url.drivername == "postgresql":
                url = url.set(drivername="postgresql+psycopg")  # before SQLAlchemy 2.1 it selected an older driver
            if url.get_backend_name() != "sqlite":
                return Database(create_engine(url, json_serializer=as_json), None, url.render_as_string())
        except ModuleNotFoundError as error:
            name = "'genret[postgres]'" if error.name == "psycopg" else error.name
            raise UsageError(f"{where.partition('://')[0]}://... needs a driver: pip install {name}") from None
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise UsageError(f"{where.partition('://')[0]}://...: no database that can be opened ({error})") from None
        if url.database in (None, "", ":memory:"):
            name, options = "the catalog in memory", {"check_same_thread": False}
            return Database(_sqlite(url, name, poolclass=StaticPool, connect_args=options), None, name)
        where = str(url.database)
    path = Path(where)
    for file in (path, *(path.with_name(path.name + suffix) for suffix in ("-journal", "-wal", "-shm"))):
        if file.exists() and not file.is_file():  # reading a pipe or a device might never end
            what = "a folder" if file.is_dir() else "no regular file"
            raise GenretError(f"{file} is {what} and no part of a catalog; name a catalog.sqlite")
    # SQLite in WAL mode writes even to read, unless the file is declared immutable.
    writable = not path.exists() or (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))
    url = URL.create("sqlite", database=str(path))
    if not writable:
        wal = path.with_name(path.name + "-wal")
        query = {"mode": "ro", "uri": "true"} | ({} if wal.exists() and wal.stat().st_size else {"immutable": "1"})
        url = URL.create("sqlite", database=f"file:{quote(str(path.absolute()))}", query=query)
    return Database(_sqlite(url, str(path), writable), path, str(path), writable)


def _sqlite(url: URL, name: str, writable: bool = True, **options: Any) -> Engine:
    engine = create_engine(url, json_serializer=as_json, **options)

    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # transactions begin below, so that a writer takes its lock at once
        connection.execute(f"PRAGMA busy_timeout = {int(1000 * BUSY_TIMEOUT)}")
        _refuse_what_is_no_catalog(connection, name)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA mmap_size = 0")  # SQLite before 3.51.3 must not map a file that others write

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        write = connection.get_execution_options().get(_WRITE, False)
        if write and writable:
            # Returns the mode in effect: file systems without shared memory stay with a rollback journal.
            connection.exec_driver_sql("PRAGMA journal_mode = WAL").all()
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _refuse_what_is_no_catalog(connection: Any, name: str) -> None:
    """Checks a file before anything is written to it, and before a foreign view or trigger can run."""
    kind = "CASE WHEN sql LIKE 'CREATE VIRTUAL%' THEN 'virtual table' ELSE type END"
    objects = connection.execute(f"SELECT {kind}, name FROM sqlite_master").fetchall()
    if objects and ("table", "properties") not in objects:
        raise GenretError(f"{name} is no catalog of genret")
    for kind, what in objects:
        if kind not in ("table", "index"):
            raise GenretError(f"{name} has the {kind} '{what}', which no catalog has; it is not safe to open")


@contextmanager
def reading(database: Database) -> Iterator[Connection]:
    """One consistent view of the catalog."""
    with friendly(database.name), database.engine.connect() as connection:
        if connection.dialect.name == "postgresql":  # by default each statement may see another version
            connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            yield connection


@contextmanager
def writing(database: Database) -> Iterator[Connection]:
    """One transaction: all or nothing. Other writers wait."""
    with friendly(database.name), _only_writer(database), database.engine.connect() as connection:
        connection = connection.execution_options(**{_WRITE: True})
        with connection.begin():
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(1000 * BUSY_TIMEOUT)}")
            yield connection


@contextmanager
def _only_writer(database: Database) -> Iterator[None]:
    """SQLite before 3.51.3 can damage a WAL file that two connections write or checkpoint at once. Checkpoints run when
    a writer commits, within this lock, and when a file's last connection closes."""
    if database.path is None:
        yield
        return
    try:
        # one for all catalogs of a folder, so that renaming a catalog leaves no old lock file
        held = FileLock(database.path.with_name(LOCK)).acquire(timeout=BUSY_TIMEOUT, poll_interval=0.02)
    except Timeout:
        raise GenretError(f"{database.name} is being written by another process; try again when it is done") from None
    except OSError as error:
        raise GenretError(f"cannot write {database.name}: {error.strerror}; check its folder's rights") from None
    with held:
        yield


@contextmanager
def friendly(name: str) -> Iterator[None]:
    """Turns database errors into a `GenretError` that names the database; genret's own bugs are not caught."""
    try:
        yield
    except DatabaseError as error:
        # A file that is not a database raises a plain DatabaseError. Its subclasses are errors in statements, except
        # for values that a database cannot keep, such as a NUL in PostgreSQL.
        if not isinstance(error, (OperationalError, DataError)) and type(error) is not DatabaseError:
            raise
        said = " ".join(str(error.orig).split())
        fault = next(means for pattern, means in _FAULTS.items() if re.search(pattern, said))
        raise GenretError(f"{fault.format(name)} ({said})") from error
