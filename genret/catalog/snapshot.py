"""Reading a catalog: each method sees one version, and a `Catalog.snapshot` keeps to one over many calls.

Rows stream in chunks; nothing builds an object per row that a search touches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from sqlalchemy import Connection, Select, bindparam, func, not_, select
from torch import Tensor

from genret.catalog.bulk import select_among
from genret.catalog.codec import unpack, unpack_vectors
from genret.catalog.engine import Database, reading
from genret.catalog.feed import changes_since, current_version
from genret.catalog.filter import compile_filter
from genret.catalog.rows import CaptionRows, Changes, IdentifierRows, ImageRow, Ints, is_text
from genret.catalog.schema import captions, features, identifiers, images, properties
from genret.catalog.stream import CHUNK, fetch, identifier_chunks, joined_rows, read_ints
from genret.errors import GenretError


class Snapshot:
    """What can be asked of a catalog. Made by `Catalog.create`, `Catalog.open` and `Catalog.snapshot`."""

    def __init__(self, database: Database, pinned: Connection | None = None):
        self._database = database
        self._pinned = pinned
        """The connection of a snapshot; without it each method reads in a transaction of its own."""

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        if self._pinned is not None:
            yield self._pinned
        else:
            with reading(self._database) as connection:
                yield connection

    # ------------------------------------------------------------------------------------------------------- facts
    @property
    def run_id(self) -> str:
        return self._property("run_id") or ""

    @property
    def uid(self) -> str:
        """Names the catalog: no other has the same, but for its copies."""
        return self._property("uid") or ""

    @property
    def version(self) -> int:
        """Grows with every change of the images, and never repeats itself (`feed.py`)."""
        with self._reading() as connection:
            return current_version(connection)

    @property
    def state(self) -> str:
        """Names the contents: no other catalog and no other version of this one has the same. For keys of caches."""
        with self._reading() as connection:
            return f"{property_of(connection, 'uid')}-{current_version(connection)}"

    @property
    def feature_dim(self) -> int:
        """D of the stored vectors, 0 as long as there are none."""
        return int(self._property("feature_dim") or 0)

    def image_count(self, split: str | None = None, searchable: bool | None = None) -> int:
        with self._reading() as connection:
            return int(connection.execute(_only(select(func.count(images.c.id)), split, searchable)).scalar_one())

    def splits(self) -> dict[str | None, int]:
        """How many images each split has; None: those that were added."""
        with self._reading() as connection:
            rows = connection.execute(select(images.c.split, func.count()).group_by(images.c.split)).all()
            return {row[0]: row[1] for row in rows}

    # ------------------------------------------------------------------------------------------------------- images
    def keys(self, split: str | None = None, searchable: bool | None = None) -> Ints:
        """Keys of the images of a split, of the searchable ones, or of all, ascending."""
        return self._keys_by(_only(select(images.c.id), split, searchable))

    def highest_key(self) -> int:
        """The key that the newest image got, 0 where none was ever added: how many have been, at least."""
        return int(self._property("highest_key") or 0)

    def searchable_keys(self) -> Ints:
        """Keys of everything that a search may find, ascending."""
        return self.keys(searchable=True)

    def keys_of(self, image_ids: Sequence[str], searchable: bool | None = None) -> Ints:
        """(n,) the keys of n images, -1 where there is none. `searchable`: looks among these, or the rest, only."""
        with self._reading() as connection:
            return self._keys_of(connection, image_ids, searchable)

    def keys_where(self, where: str) -> Ints:
        """Keys of the images that a filter lets through, ascending; the language is in `filter.py`."""
        compiled = compile_filter(where)
        found = self._keys_by(select(images.c.id).where(compiled.condition))
        if not len(found):
            with self._reading() as connection:
                compiled.check_keys(connection)
        return found

    def identifier_rows(
        self, split: str | None = None, searchable: bool | None = None, chunk: int = CHUNK
    ) -> Iterator[IdentifierRows]:
        """Streams the identifiers of the images of a split, of the searchable ones, or of all.

        Each chunk's codes are as wide as its longest identifier.
        """
        if split is None:
            statement = select(identifiers.c.image_key, identifiers.c.identifier)
            if searchable is not None:
                statement = statement.where(_is(identifiers.c.searchable, searchable))
        else:
            named = select(identifiers.c.image_key, identifiers.c.identifier).join_from(images, identifiers)
            statement = _only(named, split, searchable)
        statement = statement.order_by(identifiers.c.image_key, identifiers.c.identifier)
        with self._reading() as connection:
            yield from identifier_chunks(connection, statement, chunk)

    def read_identifiers(self, split: str | None = None, searchable: bool | None = None) -> IdentifierRows:
        """All that `identifier_rows` streams, in one piece."""
        return joined_rows(list(self.identifier_rows(split, searchable)))

    def identifiers_of(self, keys: Ints) -> IdentifierRows:
        """The identifiers of these images, which may have gone meanwhile."""
        statement = select(identifiers.c.image_key, identifiers.c.identifier)
        parts = self._by_key(statement, identifiers.c.image_key, np.unique(keys))
        rows = sorted((key, blob) for part in parts for key, blob in part)
        return IdentifierRows(np.array([key for key, _ in rows], np.int64), *unpack([blob for _, blob in rows]))

    def keys_named(self, packed: Sequence[bytes]) -> Ints:
        """Keys of the images that have one of these identifiers, ascending."""
        statement = select(identifiers.c.image_key).where(identifiers.c.identifier == bindparam("identifier"))
        with self._reading() as connection:
            found = [connection.execute(statement, {"identifier": blob}).scalars().all() for blob in set(packed)]
        return np.unique(np.array([key for keys in found for key in keys], dtype=np.int64))

    def changes_since(self, version: int) -> Changes | None:
        """What leads from `version` of this catalog to the present one, at a cost that grows with the changes; None
        if it does not know (any more) what it held then: load everything."""
        with self._reading() as connection:
            return changes_since(connection, version)

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
        with self._reading() as connection:
            rows = [row for part in fetch(connection, statement) for row in part]
        return CaptionRows(np.array([key for key, _ in rows], dtype=np.int64), [text for _, text in rows])

    # ------------------------------------------------------------------------------------------------------- inside
    def _keys_by(self, statement: Select[Any]) -> Ints:
        with self._reading() as connection:
            return np.sort(read_ints(connection, statement))

    def _by_key(self, statement: Select[Any], column: Any, keys: Ints) -> Iterator[Sequence[Any]]:
        with self._reading() as connection:
            yield from select_among(connection, statement, column, keys.tolist())

    def _keys_of(self, connection: Connection, image_ids: Sequence[str], searchable: bool | None = None) -> Ints:
        asked = _only(select(images.c.image_id, images.c.id), None, searchable)
        known: dict[str, int] = {}
        # a name that is no text (a file name in another encoding) cannot be in the catalog
        names = [name for name in dict.fromkeys(image_ids) if is_text(name)]
        for rows in select_among(connection, asked, images.c.image_id, names):
            known.update((row[0], row[1]) for row in rows)
        return np.array([known.get(name, -1) for name in image_ids], dtype=np.int64)

    def _property(self, key: str) -> str | None:
        with self._reading() as connection:
            return property_of(connection, key)


def property_of(connection: Connection, key: str) -> str | None:
    return connection.execute(select(properties.c.value).where(properties.c.key == key)).scalar_one_or_none()


def _only(statement: Select[Any], split: str | None, searchable: bool | None) -> Select[Any]:
    if split is not None:
        statement = statement.where(images.c.split == split)
    if searchable is not None:
        statement = statement.where(_is(images.c.searchable, searchable))
    return statement


def _is(column: Any, value: bool) -> Any:
    return column if value else not_(column)
