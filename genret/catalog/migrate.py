"""Brings a catalog that an older genret made up to date: one step per schema version, all of them or none.

`properties.schema` alone says what a catalog is. Alembic does the work, and keeps no table of its own. A step never
changes once it is released, and so names no table of `schema.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    text,
)

from genret.catalog.engine import Database, writing
from genret.catalog.feed import next_version
from genret.catalog.schema import SCHEMA_VERSION
from genret.catalog.write import take_turn
from genret.errors import GenretError

_Key = BigInteger().with_variant(Integer, "sqlite")


def upgrade(database: Database) -> None:
    """In one transaction, while nobody else writes; an interrupted one leaves the catalog as it was."""
    if not database.writable:
        raise GenretError(
            f"{database.name} was made by an older genret and may only be read here; copy its folder to where it may "
            "be written, and use that"
        )
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    with writing(database) as connection:
        take_turn(connection)
        for schema in range(_schema(connection), SCHEMA_VERSION):  # another process may have been faster
            _STEPS[schema](connection, Operations(MigrationContext.configure(connection)), database.name)
            connection.execute(
                text("UPDATE properties SET value = :schema WHERE key = 'schema'"), {"schema": str(schema + 1)}
            )


def _schema(connection: Connection) -> int:
    return int(_number(connection, "SELECT value FROM properties WHERE key = 'schema'"))


def _number(connection: Connection, query: str) -> int:
    return int(connection.execute(text(query)).scalar_one_or_none() or 0)


def _feed(connection: Connection, op: Any, name: str) -> None:
    """1 → 2: changes can be told since a version; identifiers lie in their images' order and say what is searched."""
    op.add_column("images", Column("version", BigInteger, nullable=False, server_default=text("0")))
    op.create_index("images_by_version", "images", ["version", "searchable"])
    op.create_table(
        "identifiers_2",
        Column("image_key", _Key, nullable=False),
        Column("identifier", LargeBinary, nullable=False),
        Column("searchable", Boolean, nullable=False),
        PrimaryKeyConstraint("image_key", "identifier"),
        ForeignKeyConstraint(["image_key"], ["images.id"], ondelete="CASCADE"),
        sqlite_with_rowid=False,
    )
    moved = connection.execute(
        text(
            "INSERT INTO identifiers_2 (image_key, identifier, searchable) "
            "SELECT DISTINCT image_key, identifier, searchable FROM identifiers JOIN images ON images.id = image_key "
            "ORDER BY image_key, identifier"
        )
    ).rowcount
    if moved != _number(
        connection, "SELECT count(*) FROM (SELECT DISTINCT image_key, identifier FROM identifiers) AS x"
    ):
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
    # what is known of before is nothing: caches of then load everything once
    now = {"version": next_version(connection)}
    connection.execute(text("INSERT INTO versions (version) VALUES (:version)"), now)
    connection.execute(text("DELETE FROM properties WHERE key = 'version'"))
    highest = _number(connection, "SELECT max(id) FROM images")
    if connection.dialect.name == "sqlite":
        highest = max(highest, _number(connection, "SELECT seq FROM sqlite_sequence WHERE name = 'images'"))
    elif connection.dialect.name == "postgresql":
        highest = max(highest, _number(connection, "SELECT last_value FROM images_id_seq WHERE is_called"))
    connection.execute(text("INSERT INTO properties (key, value) VALUES ('highest_key', :key)"), {"key": str(highest)})


_STEPS: dict[int, Callable[[Connection, Any, str], None]] = {1: _feed}
