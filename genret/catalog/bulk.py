"""Bulk reads and writes at the database's own speed, which SQLAlchemy's processing of every value would slow down.

Long results become flat arrays: Python objects exist only for the few hundred rows fetched at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any

import numpy as np
from sqlalchemy import Connection, Delete, Select, Table, bindparam, insert

from genret.catalog.codec import unpack_joined
from genret.catalog.rows import IdentifierRows
from genret.errors import GenretError
from genret.kit.arrays import Ints

FETCH = 512
"""Number of rows that exist as Python objects at a time: as many as fit into the processor's cache."""
CHUNK = 65_536
"""Number of rows unpacked at a time."""
IN_A_LIST = 500
"""Values in one `IN (...)`: every SQLite allows 999."""

_first, _second = itemgetter(0), itemgetter(1)


def insert_rows(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """rows: values of all columns, in the table's order; JSON as text."""
    if not rows:
        return
    dialect = connection.dialect
    if dialect.driver == "psycopg":
        columns = ", ".join(map(dialect.identifier_preparer.format_column, table.columns))
        cursor: Any = connection.connection.cursor()
        with cursor, cursor.copy(f"COPY {table.name} ({columns}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        return
    statement = str(insert(table).compile(dialect=dialect))
    names = table.columns.keys()
    given: Any = rows if dialect.positional else [dict(zip(names, row, strict=True)) for row in rows]
    connection.exec_driver_sql(statement, given)


def among(connection: Connection, statement: Select[Any] | Delete, column: Any, values: Sequence[Any]) -> Iterator[Any]:
    """Selects or deletes the rows whose `column` has one of the values, some hundred values at a time → results."""
    statement = statement.where(column.in_(bindparam("values", expanding=True)))
    for start in range(0, len(values), IN_A_LIST):
        yield connection.execute(statement, {"values": values[start : start + IN_A_LIST]})


def fetch(connection: Connection, statement: Select[Any], size: int = FETCH) -> Iterator[Sequence[Any]]:
    """Rows in the form of the statement's database, `size` at a time; nothing more is kept in memory."""
    sqlite = connection.dialect.name == "sqlite"
    result: Any = connection.execute(statement, execution_options={"stream_results": not sqlite})
    # SQLite's own cursor fetches on demand, and SQLAlchemy's rows are slower
    source = result.cursor if sqlite else result
    try:
        while rows := source.fetchmany(size):
            yield rows
    finally:
        result.close()


def read_ints(connection: Connection, statement: Select[Any]) -> Ints:
    """The only column of a result."""
    parts = [np.fromiter(map(_first, rows), np.int64, len(rows)) for rows in fetch(connection, statement)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def identifier_chunks(connection: Connection, statement: Select[Any], chunk: int = CHUNK) -> Iterator[IdentifierRows]:
    """A result of (image key, identifier) in chunks of at most `chunk` rows, each as wide as its longest identifier."""
    parts = map(_flat, fetch(connection, statement, min(FETCH, chunk)))
    while some := list(islice(parts, max(1, chunk // FETCH))):
        keys, lengths, joined = zip(*some, strict=True)
        yield IdentifierRows(np.concatenate(keys), *unpack_joined(b"".join(joined), np.concatenate(lengths)))


def _flat(rows: Sequence[Any]) -> tuple[Ints, Ints, bytes]:
    """Keys, lengths of the identifiers, and all identifiers concatenated."""
    blobs = list(map(_second, rows))
    keys = np.fromiter(map(_first, rows), np.int64, len(rows))
    return keys, np.fromiter(map(len, blobs), np.int64, len(rows)), b"".join(blobs)


def joined_rows(chunks: Sequence[IdentifierRows]) -> IdentifierRows:
    """One table of all chunks, as wide as the widest."""
    keys = np.concatenate([np.zeros(0, dtype=np.int64), *(chunk.image_keys for chunk in chunks)])
    tables = [chunk.codes for chunk in chunks if chunk.codes is not None]
    texts = [text for chunk in chunks for text in chunk.texts or ()]
    if tables and texts:
        raise GenretError("the catalog mixes identifiers of symbols and of text; train anew")
    if not tables:
        return IdentifierRows(keys, None, texts or None)
    width = max(table.shape[1] for table in tables)
    for place, table in enumerate(tables):
        if table.shape[1] < width:
            tables[place] = np.pad(table, ((0, 0), (0, width - table.shape[1])), constant_values=-1)
    return IdentifierRows(keys, np.concatenate(tables), None)
