"""The tables of a catalog, for any database that SQLAlchemy supports. `shell/migrate.py` upgrades older schemas."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, String, Table, Text

SCHEMA_VERSION = 3
"""Raised when a change of the tables would mislead older versions of genret; `shell/migrate.py` then gets a step."""
READABLE = 2
"""The oldest schema that can be read without an upgrade, if the catalog is read-only."""

_Key = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER is the row id in SQLite
_Name = Text().with_variant(String(512), "mysql", "mariadb")  # indexed text needs a length there
_Packed = LargeBinary().with_variant(sa.VARBINARY(2048), "mysql", "mariadb")

metadata = sa.MetaData()

images = Table(
    "images",
    metadata,
    Column("id", _Key, primary_key=True, autoincrement=True),
    Column("image_id", _Name, nullable=False, unique=True),
    Column("uri", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("split", String(255)),  # the dataset's split; NULL: added by `genret index`
    Column("searchable", Boolean, nullable=False),
    Column("metadata", sa.JSON, nullable=False),
    Column("version", BigInteger, nullable=False, server_default=sa.text("0")),  # that added or replaced it
    Index("images_by_split", "split"),
    Index("images_by_version", "version", "searchable"),
    sqlite_autoincrement=True,  # keys of removed images are never reused
)

identifiers = Table(
    "identifiers",
    metadata,
    Column("image_key", _Key, sa.ForeignKey("images.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("identifier", _Packed, primary_key=True),
    Column("searchable", Boolean, nullable=False),  # a copy of the image's, so that a full load need not read images
    Index("identifiers_by_identifier", "identifier"),
    sqlite_with_rowid=False,  # rows are stored in the order of their key
)

captions = Table(
    "captions",
    metadata,
    Column("image_key", _Key, sa.ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("text", Text, nullable=False),
)

features = Table(
    "features",
    metadata,
    Column("image_key", _Key, sa.ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    Column("vector", LargeBinary, nullable=False),  # float16, little endian
)

# the newest is the catalog's; versions older than `feed.HISTORY` are deleted
versions = Table("versions", metadata, Column("version", BigInteger, primary_key=True, autoincrement=False))

outdated = Table(  # images removed or replaced at that version
    "outdated",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("image_key", _Key, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

properties = Table(  # schema, run_id, uid, highest_key, feature_dim
    "properties",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
