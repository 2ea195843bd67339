"""Opening a database: SQLite set up for one writer and many readers, and faults in sentences that name the file."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, StaticPool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DataError, NoSuchModuleError, OperationalError

from genret.errors import GenretError, UsageError

BUSY_TIMEOUT = 30.0
"""Seconds that a connection waits for another's write to end."""
LOCK = ".catalog.lock"
"""The file beside a catalog that its writer locks."""
_WRITE = "genret_write"


class Database(NamedTuple):
    engine: Engine
    path: Path | None
    """The SQLite file; None for databases elsewhere and in memory."""
    name: str
    """As people know it: the path, or the URL without its password."""
    writable: bool = True


def connect_to(where: str | Path) -> Database:
    """A path is a SQLite file; a text with `://` is an SQLAlchemy URL. Opens nothing yet."""
    if isinstance(where, str) and "://" in where:
        try:
            url = make_url(where)
            if url.drivername == "postgresql":
                url = url.set(drivername="postgresql+psycopg")  # before SQLAlchemy 2.1 it meant an older driver
            if url.get_backend_name() != "sqlite":
                return Database(create_engine(url), None, url.render_as_string(hide_password=True))
        except ModuleNotFoundError as error:
            name = "'genret[postgres]'" if error.name == "psycopg" else error.name
            raise UsageError(f"{where.partition('://')[0]}://... needs a driver: pip install {name}") from None
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise UsageError(f"{where.partition('://')[0]}://...: no database that can be opened ({error})") from None
        if url.database in (None, "", ":memory:"):
            memory = create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
            return Database(_prepared(memory, writable=True), None, "the catalog in memory")
        where = str(url.database)
    path = Path(where)
    if path.is_dir():
        raise GenretError(f"{path} is a folder, not a catalog; name its catalog.sqlite")
    # SQLite in WAL mode wants to write even to read, unless it is told that nothing will change.
    writable = not path.exists() or (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))
    if writable:
        return Database(_prepared(create_engine(URL.create("sqlite", database=str(path))), True), path, str(path))
    wal = path.with_name(path.name + "-wal")
    query = {"mode": "ro", "uri": "true"} | ({} if wal.exists() and wal.stat().st_size else {"immutable": "1"})
    url = URL.create("sqlite", database=f"file:{quote(str(path.absolute()))}", query=query)
    return Database(_prepared(create_engine(url), False), path, str(path), False)


def _prepared(engine: Engine, writable: bool) -> Engine:
    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # transactions begin below, so that a writer takes its lock at once
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {int(1000 * BUSY_TIMEOUT)}")
        cursor.execute("PRAGMA foreign_keys = ON")
        if writable:
            # Answers with the mode that holds: file systems without shared memory stay with a rollback journal.
            cursor.execute("PRAGMA journal_mode = WAL").fetchall()
            cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        write = connection.get_execution_options().get(_WRITE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


@contextmanager
def reading(database: Database) -> Iterator[Connection]:
    """One consistent view of the catalog."""
    with friendly(database.name), database.engine.connect() as connection:
        if connection.dialect.name == "postgresql":  # whose default shows each statement another version
            connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            yield connection


@contextmanager
def writing(database: Database) -> Iterator[Connection]:
    """One transaction: all or nothing. Others wait for their turn."""
    with friendly(database.name), _only_writer(database), database.engine.connect() as connection:
        connection = connection.execution_options(**{_WRITE: True})
        with connection.begin():
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(1000 * BUSY_TIMEOUT)}")
            yield connection


@contextmanager
def _only_writer(database: Database) -> Iterator[None]:
    """SQLite before 3.51.3 can damage a WAL file that two connections write or checkpoint at once."""
    if database.path is None:
        yield
        return
    try:
        # one for all catalogs of a folder, so that renaming a catalog leaves no lock of its old name behind
        handle = os.open(database.path.with_name(LOCK), os.O_CREAT | os.O_RDWR, 0o666)
    except OSError as error:
        raise GenretError(f"cannot write {database.name}: {error.strerror}; check its folder's rights") from None
    try:
        give_up = time.monotonic() + BUSY_TIMEOUT
        while not _locked(handle):
            if time.monotonic() > give_up:
                raise GenretError(f"{database.name} is being written by another process; try again when it is done")
            time.sleep(0.02)
        yield
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def friendly(name: str) -> Iterator[None]:
    """What the database cannot do, as a `GenretError` that names it; genret's own mistakes stay what they are."""
    try:
        yield
    except DatabaseError as error:
        # A file that is no database is a plain DatabaseError; its other children are mistakes in statements, but for
        # values that a database cannot keep, such as a NUL in PostgreSQL.
        if not isinstance(error, (OperationalError, DataError)) and type(error) is not DatabaseError:
            raise
        said = " ".join(str(error.orig).split())
        raise GenretError(f"{_fault(name, said)} ({said})") from error


def _fault(name: str, said: str) -> str:
    if "disk is full" in said or "No space left" in said:
        return f"cannot write {name}: the disk is full; make room and try again, nothing was changed"
    if "disk I/O error" in said:
        return f"cannot read or write {name}: the disk may be full or failing; make room and try again"
    if "readonly" in said or "read-only" in said:
        return f"cannot write {name}: it may only be read; check the rights of the file and its folder"
    if "not a database" in said or "malformed" in said or "encrypted" in said:
        return f"{name} is damaged or no catalog; restore a copy of it or train anew"
    if "no such table" in said or "no such column" in said or "does not exist" in said:
        return f"{name} is no catalog of genret"
    if "locked" in said or "lock timeout" in said:
        return f"{name} is being written by another process; try again when it is done"
    if "unable to open" in said:
        return f"cannot open {name}; check that its folder exists and may be written"
    return f"cannot use {name}"
