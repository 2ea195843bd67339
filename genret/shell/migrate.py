"""Upgrades a catalog of an older genret: one step per schema version, all of them or none.

`properties.schema` alone records the version. Alembic changes the tables, without a table of its own. A step never
changes once it is released, so it uses no table of `schema.py` but `properties`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Connection, text

from genret.catalog.engine import Database, writing
from genret.catalog.feed import next_version, take_turn
from genret.catalog.schema import SCHEMA_VERSION
from genret.catalog.write import set_property
from genret.errors import GenretError

CHUNK = 5_000
"""Number of images changed at a time."""
_Key = BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade(database: Database) -> None:
    """In one transaction, without other writers; if interrupted, the catalog is unchanged."""
    if not database.writable:
        raise GenretError(
            f"{database.name} was made by an older genret and may only be read here; copy its folder to where it may "
            "be written, and use that"
        )
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    with writing(database) as connection:
        take_turn(connection)
        schema = _number(connection, "SELECT value FROM properties WHERE key = 'schema'")
        for step in range(schema, SCHEMA_VERSION):  # another process may have been faster
            _STEPS[step](connection, Operations(MigrationContext.configure(connection)), database.name)
        set_property(connection, "schema", str(SCHEMA_VERSION))


def _number(connection: Connection, query: str) -> int:
    return int(connection.execute(text(query)).scalar() or 0)


def _feed(connection: Connection, op: Any, name: str) -> None:
    """1 → 2: changes since a version are recorded; identifiers are sorted by image and marked as searchable or not."""
    op.add_column("images", Column("version", BigInteger, nullable=False, server_default=text("0")))
    op.create_index("images_by_version", "images", ["version", "searchable"])
    op.create_table(
        "identifiers_2",
        Column("image_key", _Key, nullable=False),
        Column("identifier", sa.LargeBinary, nullable=False),
        Column("searchable", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("image_key", "identifier"),
        sa.ForeignKeyConstraint(["image_key"], ["images.id"], ondelete="CASCADE"),
        sqlite_with_rowid=False,
    )
    named = "SELECT DISTINCT image_key, identifier{} FROM identifiers"
    with_images = f"{named.format(', searchable')} JOIN images ON images.id = image_key ORDER BY image_key, identifier"
    insert = text(f"INSERT INTO identifiers_2 (image_key, identifier, searchable) {with_images}")
    if connection.execute(insert).rowcount != _number(connection, f"SELECT count(*) FROM ({named.format('')}) AS x"):
        raise GenretError(f"{name} is damaged: identifiers belong to images that are not there; restore a copy of it")
    op.drop_table("identifiers")
    op.rename_table("identifiers_2", "identifiers")
    op.create_index("identifiers_by_identifier", "identifiers", ["identifier"])
    op.create_table("versions", Column("version", BigInteger, primary_key=True, autoincrement=False))
    op.create_table(
        "outdated",
        Column("version", BigInteger, primary_key=True, autoincrement=False),
        Column("image_key", _Key, primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )
    # earlier changes are unknown: caches of earlier versions load everything once
    now = {"version": next_version(0)}
    connection.execute(text("INSERT INTO versions (version) VALUES (:version)"), now)
    connection.execute(text("DELETE FROM properties WHERE key = 'version'"))
    counters = {
        "sqlite": "SELECT seq FROM sqlite_sequence WHERE name = 'images'",
        "postgresql": "SELECT last_value FROM images_id_seq WHERE is_called",
    }
    highest = "SELECT max(id) FROM images"
    given = max(_number(connection, query) for query in (highest, counters.get(connection.dialect.name, highest)))
    set_property(connection, "highest_key", str(given))


def _as_written(connection: Connection, op: Any, name: str) -> None:
    """2 → 3: metadata hold letters beyond ASCII unescaped, not as JSON escapes, so that SQL finds keys by them."""
    facts = sa.table("images", sa.column("id", BigInteger), sa.column("metadata", sa.JSON))
    stored = sa.cast(facts.c.metadata, sa.Text)
    escaped = sa.select(facts.c.id, stored).where(stored.contains("\\u", autoescape=True)).order_by(facts.c.id)
    last = 0
    while rows := connection.execute(escaped.where(facts.c.id > last).limit(CHUNK)).all():
        last = rows[-1][0]
        try:
            values = [{"key": key, "metadata": json.loads(said)} for key, said in rows]
        except (ValueError, RecursionError):
            raise GenretError(f"{name} is damaged: metadata are no JSON; restore a copy of it") from None
        connection.execute(sa.update(facts).where(facts.c.id == sa.bindparam("key")), values)


_STEPS: dict[int, Callable[[Connection, Any, str], None]] = {1: _feed, 2: _as_written}
