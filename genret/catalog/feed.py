"""Changes since a version of the catalog, at a cost that grows with the changes, not with the catalog.

A version is the time of the change that made it, in microseconds, and at least one more than the version before. A
counter would repeat if a catalog is restored from a copy and changed again, and caches would confuse the two.
"""

from __future__ import annotations

import time

import numpy as np
from sqlalchemy import Connection, delete, func, insert, select

from genret.catalog.bulk import identifier_chunks, joined_rows, read_ints
from genret.catalog.rows import Changes
from genret.catalog.schema import identifiers, images, outdated, properties, versions

HISTORY = 30 * 24 * 3600 * 1_000_000
"""Microseconds for which removals are recorded; readers of older versions must load everything."""


def current_version(connection: Connection) -> int:
    return int(connection.execute(select(func.max(versions.c.version))).scalar_one() or 0)


def take_turn(connection: Connection) -> None:
    """Other writers wait from here on. SQLite's already have the file locked; others wait for this row."""
    connection.execute(select(properties.c.value).where(properties.c.key == "uid").with_for_update()).all()


def next_version(version: int) -> int:
    """The version that follows `version`: the current time in microseconds, but at least one more."""
    return max(version + 1, time.time_ns() // 1000)


def move_to(connection: Connection, version: int) -> None:
    """Ends a change: sets the catalog's version."""
    connection.execute(insert(versions).values(version=version))
    for table in (versions, outdated):
        connection.execute(delete(table).where(table.c.version < version - HISTORY))


def changes_since(connection: Connection, since: int) -> Changes | None:
    """All changes after version `since`; None if the catalog has no record of that version (any more)."""
    version = current_version(connection)
    known = select(versions.c.version).where(versions.c.version == since, versions.c.version >= version - HISTORY)
    if connection.execute(known).first() is None:
        return None
    changed = select(images.c.id).where(images.c.version > since, images.c.searchable)
    named = (
        select(identifiers.c.image_key, identifiers.c.identifier)
        .where(identifiers.c.image_key.in_(changed))  # not a join, for which SQLite would read all identifiers
        .order_by(identifiers.c.image_key, identifiers.c.identifier)
    )
    removed = np.unique(read_ints(connection, select(outdated.c.image_key).where(outdated.c.version > since)))
    added = joined_rows(list(identifier_chunks(connection, named)))
    return Changes(version, removed, np.sort(read_ints(connection, changed)), added)
