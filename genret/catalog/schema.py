"""The tables of a catalog, for any database that SQLAlchemy speaks to. How older ones become these: `migrate.py`."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, String, Table, Text

SCHEMA_VERSION = 3
"""Raised when the tables change so that older versions of genret would misread them; `migrate.py` then gets a step."""

_Key = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER is the row's own number in SQLite
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
    Column("split", String(255)),  # the data set's split; NULL: added by `genret index`
    Column("searchable", Boolean, nullable=False),
    Column("metadata", sa.JSON, nullable=False),
    Column("version", BigInteger, nullable=False, server_default=sa.text("0")),  # that added or replaced it
    Index("images_by_split", "split"),
    Index("images_by_version", "version", "searchable"),
    sqlite_autoincrement=True,  # a removed image's key is never given to another
)

identifiers = Table(
    "identifiers",
    metadata,
    Column("image_key", _Key, sa.ForeignKey("images.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("identifier", _Packed, primary_key=True),
    Column("searchable", Boolean, nullable=False),  # its image's, so that a full load need not look at images
    Index("identifiers_by_identifier", "identifier"),
    sqlite_with_rowid=False,  # the rows lie in the order of their key
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

# the newest is the catalog's; older ones than `feed.HISTORY` are forgotten
versions = Table("versions", metadata, Column("version", BigInteger, primary_key=True, autoincrement=False))

outdated = Table(  # images whose identifiers of before that version hold no more: removed or replaced
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
