"""Reads a catalog: each method sees one version, and a `Catalog.snapshot` keeps one version over many calls.

Rows stream in chunks; no Python object is created per row during a search.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import Connection, Select, func, select

from genret.catalog.bulk import CHUNK, among, fetch, identifier_chunks, joined_rows, read_ints
from genret.catalog.codec import unpack, unpack_vectors
from genret.catalog.engine import Database, reading
from genret.catalog.feed import changes_since, current_version
from genret.catalog.filter import compile_filter
from genret.catalog.rows import CaptionRows, Changes, IdentifierRows, ImageRow, is_text
from genret.catalog.schema import captions, features, identifiers, images, properties
from genret.errors import GenretError, one_line
from genret.kit.arrays import Ints

if TYPE_CHECKING:
    from torch import Tensor

_NAMED = select(identifiers.c.image_key, identifiers.c.identifier)
_KNOWN = select(*(images.c[name] for name in ("id", "image_id", "uri", "sha256", "split", "searchable", "metadata")))


class Snapshot:
    """The read methods of a catalog. Created by `Catalog.create`, `Catalog.open` and `Catalog.snapshot`."""

    def __init__(self, database: Database, pinned: Connection | None = None):
        self._database = database
        self._pinned = pinned
        """The connection of a snapshot; without it each method reads in a transaction of its own."""

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            if self._pinned is not None:
                yield self._pinned
            else:
                with reading(self._database) as connection:
                    yield connection
        # SQLite stores values of any type in any column
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise GenretError(
                f"{self._database.name} is damaged ({one_line(error)}); restore a copy of it or train anew"
            ) from error

    # ------------------------------------------------------------------------------------------------------- facts
    @property
    def run_id(self) -> str:
        return self._property("run_id")

    @property
    def uid(self) -> str:
        """The catalog's unique id; only its copies have the same."""
        return self._property("uid")

    @property
    def version(self) -> int:
        """Grows with every change of the images, and never repeats (`feed.py`)."""
        with self._reading() as connection:
            return current_version(connection)

    @property
    def state(self) -> str:
        """A unique key of the contents: of this catalog and this version. For keys of caches."""
        with self._reading() as connection:
            return f"{property_of(connection, 'uid')}-{current_version(connection)}"

    @property
    def feature_dim(self) -> int:
        """D of the stored vectors, 0 if there are none."""
        return self._number("feature_dim")

    def highest_key(self) -> int:
        """The key of the newest image, 0 if none was ever added; at least the number of images added so far."""
        return self._number("highest_key")

    def image_count(self, split: str | None = None, searchable: bool | None = None) -> int:
        with self._reading() as connection:
            return int(connection.execute(_only(select(func.count(images.c.id)), split, searchable)).scalar_one())

    def splits(self) -> dict[str | None, int]:
        """Number of images of each split; None: those that users added."""
        with self._reading() as connection:
            rows = connection.execute(select(images.c.split, func.count()).group_by(images.c.split))
            return {row[0]: row[1] for row in rows}

    # ------------------------------------------------------------------------------------------------------- images
    def keys(self, split: str | None = None, searchable: bool | None = None) -> Ints:
        """Keys of the images of a split, of the searchable ones, or of all, ascending."""
        with self._reading() as connection:
            return np.sort(read_ints(connection, _only(select(images.c.id), split, searchable)))

    def searchable_keys(self) -> Ints:
        """Keys of all images that a search may find, ascending."""
        return self.keys(searchable=True)

    def keys_of(self, image_ids: Sequence[str], searchable: bool | None = None) -> Ints:
        """(n,) the keys of n images, -1 for none. `searchable`: looks only among these, or only among the rest."""
        # an id that is not valid text (a file name in another encoding) cannot be in the catalog
        names = [name for name in dict.fromkeys(image_ids) if is_text(name)]
        statement = _only(select(images.c.image_id, images.c.id), None, searchable)
        with self._reading() as connection:
            known = {name: key for part in among(connection, statement, images.c.image_id, names) for name, key in part}
            return np.array([known.get(name, -1) for name in image_ids], dtype=np.int64)

    def keys_where(self, where: str) -> Ints:
        """Keys of the images that match a filter, ascending; the language is in `filter.py`."""
        compiled = compile_filter(where, self._database.engine.dialect.name)
        with self._reading() as connection:
            found = np.sort(read_ints(connection, select(images.c.id).where(compiled.condition)))
            if not len(found):
                compiled.check_keys(connection)
        return found

    def lookup(self, keys: Ints) -> list[ImageRow]:
        """(n,) keys → the record of each image, in the given order. Keys may repeat."""
        asked = np.asarray(keys, dtype=np.int64)
        with self._reading() as connection:
            parts = among(connection, _KNOWN, images.c.id, np.unique(asked).tolist())
            known = {row.id: checked_row(ImageRow(*row)) for part in parts for row in part}
        if gone := [key for key in asked.tolist() if key not in known]:
            raise GenretError(f"{self._database.name} has no image {gone[0]} any more: it changed meanwhile; try again")
        return [known[key] for key in asked.tolist()]

    # -------------------------------------------------------------------------------------------- what belongs to them
    def contents_of(self, image_ids: Sequence[str]) -> dict[str, str]:
        """By id, the sha256 of those of these images that are searchable."""
        columns = select(images.c.image_id, images.c.sha256).where(images.c.searchable)
        with self._reading() as connection:
            return {
                name: sha for part in among(connection, columns, images.c.image_id, image_ids) for name, sha in part
            }

    def added_images(self) -> dict[str, str]:
        """By id, the sha256 of the images that users added to those of the dataset."""
        statement = select(images.c.image_id, images.c.sha256).where(images.c.split.is_(None))
        with self._reading() as connection:
            return {name: sha for part in fetch(connection, statement) for name, sha in part}

    def identifier_rows(
        self, split: str | None = None, searchable: bool | None = None, chunk: int = CHUNK
    ) -> Iterator[IdentifierRows]:
        """Streams the identifiers of the images of a split, of the searchable ones, or of all.

        Each chunk's codes are as wide as its longest identifier.
        """
        statement = _NAMED.order_by(identifiers.c.image_key, identifiers.c.identifier)
        if split is not None:
            statement = statement.join_from(images, identifiers).where(images.c.split == split)
        if searchable is not None:
            statement = statement.where(identifiers.c.searchable == searchable)
        with self._reading() as connection:
            yield from identifier_chunks(connection, statement, chunk)

    def read_identifiers(self, split: str | None = None, searchable: bool | None = None) -> IdentifierRows:
        """All rows of `identifier_rows` at once."""
        return joined_rows(list(self.identifier_rows(split, searchable)))

    def identifiers_of(self, keys: Ints) -> IdentifierRows:
        """The identifiers of these images, some of which may have been removed."""
        with self._reading() as connection:
            parts = among(connection, _NAMED, identifiers.c.image_key, np.unique(keys).tolist())
            rows = sorted((key, blob) for part in parts for key, blob in part)
            return IdentifierRows(np.array([key for key, _ in rows], np.int64), *unpack([blob for _, blob in rows]))

    def features_of(self, keys: Ints) -> Tensor:
        """(n,) keys → (n, D) float32 vectors; zeros for key -1. Keys may repeat."""
        from torch import from_numpy  # here: what only names images may do without

        distinct, places = np.unique(np.asarray(keys, dtype=np.int64), return_inverse=True)
        vectors = np.zeros((len(distinct), self.feature_dim), dtype=np.float32)
        found = distinct < 0
        statement = select(features.c.image_key, features.c.vector)
        with self._reading() as connection:
            for part in among(connection, statement, features.c.image_key, distinct[~found].tolist()):
                if rows := part.all():
                    at = np.searchsorted(distinct, np.array([key for key, _ in rows], dtype=np.int64))
                    vectors[at] = unpack_vectors([blob for _, blob in rows], vectors.shape[1])
                    found[at] = True
        if not found.all():
            raise GenretError(
                f"{self._database.name} has no vector of image {distinct[~found][0]}: it changed meanwhile; try again"
            )
        return from_numpy(vectors[places.reshape(-1)])

    def captions(self, split: str) -> CaptionRows:
        """The captions of a split's images, which evaluation uses as queries."""
        statement = select(captions.c.image_key, captions.c.text).join(images).where(images.c.split == split)
        with self._reading() as connection:
            rows = connection.execute(statement.order_by(captions.c.image_key, captions.c.position)).all()
            return CaptionRows(np.array([key for key, _ in rows], dtype=np.int64), [text for _, text in rows])

    def changes_since(self, version: int) -> Changes | None:
        """The changes from `version` of this catalog to the present one, at a cost that grows with the changes; None if
        there is no record of that version (any more): load everything."""
        with self._reading() as connection:
            return changes_since(connection, version)

    # ------------------------------------------------------------------------------------------------------- inside
    def _property(self, key: str) -> str:
        with self._reading() as connection:
            return property_of(connection, key)

    def _number(self, key: str) -> int:
        with self._reading() as connection:
            return int(property_of(connection, key) or 0)


def property_of(connection: Connection, key: str) -> str:
    return str(connection.execute(select(properties.c.value).where(properties.c.key == key)).scalar() or "")


def checked_row(row: ImageRow) -> ImageRow:
    for name, kind in (("image_id", str), ("uri", str), ("sha256", str), ("split", str | None), ("metadata", dict)):
        if not isinstance(getattr(row, name), kind):
            raise TypeError(f"the {name} of image {row.key} is of the wrong type")
    return row


def _only(statement: Select[Any], split: str | None, searchable: bool | None) -> Select[Any]:
    wanted = ((images.c.split, split), (images.c.searchable, searchable))
    return statement.where(*(column == value for column, value in wanted if value is not None))
