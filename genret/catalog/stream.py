"""Columns of a long result as flat arrays: no Python object outlives the few hundred rows that were fetched with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from sqlalchemy import Connection, Select

from genret.catalog.codec import unpack_joined
from genret.catalog.rows import IdentifierRows, Ints
from genret.errors import GenretError

FETCH = 512
"""Rows that exist as Python objects at a time: more of them fall out of the processor's cache."""
CHUNK = 65_536
"""Rows unpacked at a time."""

_first, _second = itemgetter(0), itemgetter(1)


def fetch(connection: Connection, statement: Select[Any]) -> Iterator[Sequence[Any]]:
    """Rows as the statement's database has them, some hundred at a time; nothing is held beyond that."""
    if (
        connection.dialect.name == "sqlite"
    ):  # whose cursor reads as it is asked; a row of SQLAlchemy costs more than one
        result = connection.execute(statement)
        source: Any = result.cursor
    else:
        source = result = connection.execute(statement, execution_options={"stream_results": True})
    try:
        while rows := source.fetchmany(FETCH):
            yield rows
    finally:
        result.close()


def read_ints(connection: Connection, statement: Select[Any]) -> Ints:
    """The only column of a result, as it comes."""
    parts = [np.fromiter(map(_first, rows), np.int64, len(rows)) for rows in fetch(connection, statement)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def identifier_chunks(connection: Connection, statement: Select[Any], chunk: int = CHUNK) -> Iterator[IdentifierRows]:
    """A result of (image key, identifier) in pieces of at most `chunk` rows, each as wide as its longest identifier."""
    keys: list[Ints] = []
    lengths: list[Ints] = []
    joined: list[bytes] = []
    waiting = 0

    def flushed() -> IdentifierRows:
        rows = IdentifierRows(np.concatenate(keys), *unpack_joined(b"".join(joined), np.concatenate(lengths)))
        for parts in (keys, lengths, joined):
            parts.clear()
        return rows

    for fetched in fetch(connection, statement):
        for start in range(0, len(fetched), chunk):
            rows = fetched[start : start + chunk] if len(fetched) > chunk else fetched
            if waiting + len(rows) > chunk:
                yield flushed()
                waiting = 0
            blobs = list(map(_second, rows))
            keys.append(np.fromiter(map(_first, rows), np.int64, len(rows)))
            lengths.append(np.fromiter(map(len, blobs), np.int64, len(rows)))
            joined.append(b"".join(blobs))
            waiting += len(rows)
    if waiting:
        yield flushed()


def read_rows(connection: Connection, statement: Select[Any]) -> IdentifierRows:
    """All of a result of (image key, identifier)."""
    return joined_rows(list(identifier_chunks(connection, statement)))


def joined_rows(chunks: list[IdentifierRows]) -> IdentifierRows:
    """One table of all chunks, as wide as the widest; empties the list on the way, so that nothing is there twice."""
    keys = np.concatenate([np.zeros(0, dtype=np.int64), *(chunk.image_keys for chunk in chunks)])
    if not chunks:
        return IdentifierRows(keys, None, None)
    tables = [chunk.codes for chunk in chunks if chunk.codes is not None]
    if len(tables) not in (0, len(chunks)):
        raise GenretError("the catalog mixes identifiers of symbols and of text; train anew")
    if not tables:
        return IdentifierRows(keys, None, [text for chunk in chunks for text in chunk.texts or ()])
    chunks.clear()
    codes = np.empty((len(keys), max(table.shape[1] for table in tables)), np.result_type(*{t.dtype for t in tables}))
    end = len(keys)
    while tables:
        table = tables.pop()
        part = codes[end - len(table) : end]
        part[:, : table.shape[1]], part[:, table.shape[1] :] = table, -1
        end -= len(table)
    return IdentifierRows(keys, codes, None)
