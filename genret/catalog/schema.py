"""The tables of a catalog, for any database that SQLAlchemy speaks to."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

SCHEMA_VERSION = 1
"""Raised when the tables change so that older versions of genret would misread them."""

_Key = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER is the row's own number in SQLite
_Name = Text().with_variant(String(512), "mysql", "mariadb")  # indexed text needs a length there

metadata = MetaData()

images = Table(
    "images",
    metadata,
    Column("id", _Key, primary_key=True, autoincrement=True),
    Column("image_id", _Name, nullable=False, unique=True),
    Column("uri", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("split", String(255)),  # the data set's split; NULL: added by `genret index`
    Column("searchable", Boolean, nullable=False),
    Column("metadata", JSON, nullable=False),
    Index("images_by_split", "split"),
    sqlite_autoincrement=True,  # a removed image's key is never given to another
)

identifiers = Table(
    "identifiers",
    metadata,
    Column("id", _Key, primary_key=True, autoincrement=True),
    Column("image_key", _Key, ForeignKey("images.id", ondelete="CASCADE"), nullable=False),
    Column("identifier", LargeBinary, nullable=False),
    Index("identifiers_by_identifier", "identifier", mysql_length={"identifier": 255}),
    Index("identifiers_by_image", "image_key"),
)

captions = Table(
    "captions",
    metadata,
    Column("image_key", _Key, ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("text", Text, nullable=False),
)

features = Table(
    "features",
    metadata,
    Column("image_key", _Key, ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    Column("vector", LargeBinary, nullable=False),  # float16, little endian
)

properties = Table(
    "properties",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
