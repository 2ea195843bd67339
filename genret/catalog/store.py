"""The truth about images and identifiers: what is searched, by which names, and how that changes.

Does not know models, tries or pixels. Images go by integer keys, which stay the same as long as the image is there and
are never given to another. Rows stream in chunks; nothing builds an object per row that a search touches.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sqlalchemy import Connection, Select, bindparam, func, inspect, select
from torch import Tensor

from genret.catalog.codec import unpack, unpack_vectors
from genret.catalog.engine import Database, connect_to, friendly, reading, writing
from genret.catalog.filter import compile_filter
from genret.catalog.rows import CaptionRows, IdentifierRows, ImageRow, Ints, NewImage
from genret.catalog.schema import SCHEMA_VERSION, captions, features, identifiers, images, metadata, properties
from genret.catalog.write import Upsert, delete_images, set_property
from genret.errors import GenretError
from genret.interfaces import IndexReport, Skipped

__all__ = ["CaptionRows", "Catalog", "IdentifierRows", "ImageRow", "NewImage"]

CHUNK = 10_000
"""Rows fetched at a time."""
KEYS_AT_A_TIME = 500
"""Keys in one `IN (...)`: every SQLite allows 999."""


class Catalog:
    """Made by `Catalog.create` or `Catalog.open`."""

    def __init__(self, database: Database):
        self._database = database

    # ------------------------------------------------------------------------------------------------------- opening
    @classmethod
    def create(cls, where: str | Path, run_id: str = "", overwrite: bool = False) -> Catalog:
        """An empty catalog at a path or SQLAlchemy URL. `overwrite`: in place of one that is there."""
        database = connect_to(where)
        with friendly(database.name):
            there = database.path is None or database.path.exists()
            if there and inspect(database.engine).get_table_names() and not overwrite:
                raise GenretError(f"there is already a catalog at {database.name}; open it, or remove it first")
        if database.path is not None and not database.path.parent.is_dir():
            raise GenretError(f"cannot make {database.name}: there is no folder {database.path.parent}")
        with writing(database) as connection:
            if overwrite:
                metadata.drop_all(connection)
            metadata.create_all(connection)
            facts = {"schema": SCHEMA_VERSION, "run_id": run_id, "version": 0, "uid": uuid.uuid4().hex}
            connection.execute(properties.insert(), [{"key": key, "value": str(v)} for key, v in facts.items()])
        return cls(database)

    @classmethod
    def open(cls, where: str | Path, create: bool = False, run_id: str | None = None) -> Catalog:
        """Opens an existing catalog. `create`: makes an empty one where there is none. `run_id`: whose it has to be."""
        database = connect_to(where)
        if database.path is not None and not database.path.exists():
            if create:
                return cls.create(where, run_id or "")
            raise GenretError(
                f"there is no catalog {database.name}; is the run finished? (genret train --run DIR --resume)"
            )
        with friendly(database.name):
            if "properties" not in inspect(database.engine).get_table_names():
                if create:
                    return cls.create(where, run_id or "")
                raise GenretError(f"{database.name} is no catalog of genret")
        catalog = cls(database)
        schema = catalog._property("schema")
        if schema is None or not schema.isdigit():
            raise GenretError(f"{database.name} is no catalog of genret")
        if int(schema) > SCHEMA_VERSION:
            raise GenretError(f"{database.name} was made by a newer genret; upgrade genret to use it")
        if run_id is not None and catalog.run_id != run_id:
            raise GenretError(
                f"{database.name} belongs to another run ({catalog.run_id or 'unnamed'}, not {run_id}): its "
                "identifiers mean something else here; put this run's own catalog back or train anew"
            )
        return catalog

    def close(self) -> None:
        """Ends all connections; the last one leaves a single file behind."""
        self._database.engine.dispose()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------- facts
    @property
    def path(self) -> Path | None:
        """The SQLite file; None for a database elsewhere."""
        return self._database.path

    @property
    def run_id(self) -> str:
        return self._property("run_id") or ""

    @property
    def version(self) -> int:
        """Moves with every change of the images."""
        return int(self._property("version") or 0)

    @property
    def state(self) -> str:
        """Names the contents: no other catalog and no other version of this one has the same. For keys of caches."""
        return f"{self._property('uid')}-{self.version}"

    @property
    def feature_dim(self) -> int:
        """D of the stored vectors, 0 as long as there are none."""
        return int(self._property("feature_dim") or 0)

    def image_count(self, split: str | None = None, searchable: bool | None = None) -> int:
        with reading(self._database) as connection:
            return int(connection.execute(_only(select(func.count(images.c.id)), split, searchable)).scalar_one())

    def splits(self) -> dict[str | None, int]:
        """How many images each split has; None: those that were added."""
        with reading(self._database) as connection:
            rows = connection.execute(select(images.c.split, func.count()).group_by(images.c.split)).all()
            return {row[0]: row[1] for row in rows}

    # ------------------------------------------------------------------------------------------------------- changing
    def add(self, rows: Iterable[NewImage]) -> IndexReport:
        """Adds images, all or none. One with a known id and the same picture is skipped as already there, one with a
        known id and another picture takes its place (but never that of a data set's image, if it is the user's)."""
        with writing(self._database) as connection:
            upsert = Upsert(connection, self._property_in(connection, "feature_dim"))
            for row in rows:
                upsert.add(row)
            upsert.flush()
            if upsert.added:
                self._bump(connection)
            return IndexReport(upsert.added, 0, upsert.skipped)

    def remove(self, image_ids: Sequence[str]) -> IndexReport:
        """Forgets images with everything that belongs to them."""
        wanted = list(dict.fromkeys(image_ids))
        with writing(self._database) as connection:
            keys = self._keys_of(connection, wanted)
            delete_images(connection, keys[keys >= 0])
            unknown = [Skipped(wanted[i], "there is no image of this id") for i in np.flatnonzero(keys < 0)]
            if len(unknown) < len(wanted):
                self._bump(connection)
        return IndexReport(0, len(wanted) - len(unknown), unknown)

    # ------------------------------------------------------------------------------------------------------- reading
    def keys(self, split: str | None = None, searchable: bool | None = None) -> Ints:
        """Keys of the images of a split, of the searchable ones, or of all, ascending."""
        return self._keys_by(_only(select(images.c.id), split, searchable))

    def highest_key(self) -> int:
        """The key of the newest image, 0 in an empty catalog: how many were ever added, at least."""
        with reading(self._database) as connection:
            return int(connection.execute(select(func.max(images.c.id))).scalar_one() or 0)

    def searchable_keys(self) -> Ints:
        """Keys of everything that a search may find, ascending."""
        return self.keys(searchable=True)

    def keys_of(self, image_ids: Sequence[str], searchable: bool | None = None) -> Ints:
        """(n,) the keys of n images, -1 where there is none. `searchable`: looks among these, or the rest, only."""
        with reading(self._database) as connection:
            return self._keys_of(connection, image_ids, searchable)

    def keys_where(self, where: str) -> Ints:
        """Keys of the images that a filter lets through, ascending; the language is in `filter.py`."""
        compiled = compile_filter(where)
        found = self._keys_by(select(images.c.id).where(compiled.condition))
        if not len(found):
            with reading(self._database) as connection:
                compiled.check_keys(connection)
        return found

    def identifier_rows(
        self, split: str | None = None, searchable: bool | None = None, chunk: int = CHUNK
    ) -> Iterator[IdentifierRows]:
        """Streams the identifiers of the images of a split, of the searchable ones, or of all.

        Each chunk's codes are as wide as its longest identifier.
        """
        statement = _only(
            select(identifiers.c.image_key, identifiers.c.identifier).join(images), split, searchable
        ).order_by(identifiers.c.image_key, identifiers.c.identifier)
        for rows in self._stream(statement, chunk):
            keys, blobs = zip(*rows, strict=True)
            yield IdentifierRows(np.array(keys, dtype=np.int64), *unpack(blobs))

    def read_identifiers(self, split: str | None = None, searchable: bool | None = None) -> IdentifierRows:
        """All that `identifier_rows` streams, in one piece."""
        chunks = list(self.identifier_rows(split, searchable))
        keys = np.concatenate([np.zeros(0, dtype=np.int64), *(chunk.image_keys for chunk in chunks)])
        tables = [chunk.codes for chunk in chunks if chunk.codes is not None]
        if len(tables) not in (0, len(chunks)):
            raise GenretError(f"{self._database.name} mixes identifiers of symbols and of text; train anew")
        if not tables:
            texts = [text for chunk in chunks for text in chunk.texts or ()]
            return IdentifierRows(keys, None, texts if chunks else None)
        width = max(table.shape[1] for table in tables)
        padded = [np.pad(table, ((0, 0), (0, width - table.shape[1])), constant_values=-1) for table in tables]
        return IdentifierRows(keys, np.concatenate(padded), None)

    def identifiers_of(self, keys: Ints) -> IdentifierRows:
        """The identifiers of these images, which may have gone meanwhile."""
        statement = select(identifiers.c.image_key, identifiers.c.identifier)
        parts = self._by_key(statement, identifiers.c.image_key, np.unique(keys))
        rows = sorted((key, blob) for part in parts for key, blob in part)
        return IdentifierRows(np.array([key for key, _ in rows], np.int64), *unpack([blob for _, blob in rows]))

    def features_of(self, keys: Ints) -> Tensor:
        """(n,) keys → (n, D) float32 vectors; zeros for key -1. Keys may repeat."""
        distinct, places = np.unique(np.asarray(keys, dtype=np.int64), return_inverse=True)
        vectors = torch.zeros(len(distinct), self.feature_dim)
        wanted = distinct[distinct >= 0]
        rows = self._by_key(select(features.c.image_key, features.c.vector), features.c.image_key, wanted)
        for part in rows:
            found, blobs = zip(*part, strict=True)
            at = torch.from_numpy(np.searchsorted(distinct, np.array(found, dtype=np.int64)))
            vectors[at] = unpack_vectors(blobs, vectors.shape[1])
            wanted = np.setdiff1d(wanted, np.array(found, dtype=np.int64), assume_unique=True)
        if len(wanted):
            raise GenretError(
                f"{self._database.name} has no vector of image {wanted[0]}: it changed meanwhile; try again"
            )
        return vectors[torch.from_numpy(places.reshape(-1))]

    def lookup(self, keys: Ints) -> list[ImageRow]:
        """(n,) keys → what is known of each image, in the order asked. Keys may repeat."""
        asked = np.asarray(keys, dtype=np.int64)
        statement = select(
            images.c.id, images.c.image_id, images.c.uri, images.c.sha256, images.c.split, images.c.searchable,
            images.c.metadata,
        )  # fmt: skip
        known = {
            row[0]: ImageRow(*row) for part in self._by_key(statement, images.c.id, np.unique(asked)) for row in part
        }
        for key in asked.tolist():
            if key not in known:
                raise GenretError(f"{self._database.name} has no image {key} any more: it changed meanwhile; try again")
        return [known[key] for key in asked.tolist()]

    def captions(self, split: str) -> CaptionRows:
        """The captions of a split's images, by which evaluation asks for them."""
        statement = (
            select(captions.c.image_key, captions.c.text)
            .join(images)
            .where(images.c.split == split)
            .order_by(captions.c.image_key, captions.c.position)
        )
        rows = [row for part in self._stream(statement, CHUNK) for row in part]
        return CaptionRows(np.array([key for key, _ in rows], dtype=np.int64), [text for _, text in rows])

    # ------------------------------------------------------------------------------------------------------- inside
    def _stream(self, statement: Select[Any], chunk: int) -> Iterator[Sequence[Any]]:
        with reading(self._database) as connection:
            yield from connection.execution_options(yield_per=chunk).execute(statement).partitions()

    def _keys_by(self, statement: Select[Any]) -> Ints:
        parts = [np.array([row[0] for row in part], dtype=np.int64) for part in self._stream(statement, CHUNK)]
        return np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *parts]))

    def _by_key(self, statement: Select[Any], column: Any, keys: Ints) -> Iterator[Sequence[Any]]:
        asked = statement.where(column.in_(bindparam("keys", expanding=True)))
        with reading(self._database) as connection:
            for start in range(0, len(keys), KEYS_AT_A_TIME):
                rows = connection.execute(asked, {"keys": keys[start : start + KEYS_AT_A_TIME].tolist()}).all()
                if rows:
                    yield rows

    def _keys_of(self, connection: Connection, image_ids: Sequence[str], searchable: bool | None = None) -> Ints:
        asked = _only(select(images.c.image_id, images.c.id), None, searchable)
        asked = asked.where(images.c.image_id.in_(bindparam("ids", expanding=True)))
        known: dict[str, int] = {}
        # a name that is no text (a file name in another encoding) cannot be in the catalog
        names = [name for name in dict.fromkeys(image_ids) if name.encode(errors="ignore").decode() == name]
        for start in range(0, len(names), KEYS_AT_A_TIME):
            rows = connection.execute(asked, {"ids": names[start : start + KEYS_AT_A_TIME]})
            known.update((image_id, key) for image_id, key in rows)
        return np.array([known.get(name, -1) for name in image_ids], dtype=np.int64)

    def _property(self, key: str) -> str | None:
        with reading(self._database) as connection:
            return self._property_in(connection, key)

    def _property_in(self, connection: Connection, key: str) -> str | None:
        return connection.execute(select(properties.c.value).where(properties.c.key == key)).scalar_one_or_none()

    def _bump(self, connection: Connection) -> None:
        set_property(connection, "version", str(int(self._property_in(connection, "version") or 0) + 1))


def _only(statement: Select[Any], split: str | None, searchable: bool | None) -> Select[Any]:
    if split is not None:
        statement = statement.where(images.c.split == split)
    if searchable is not None:
        statement = statement.where(images.c.searchable == searchable)
    return statement
