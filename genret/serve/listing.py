"""Pictures for clients: lists with filter, order and pages, one picture whole, and undoing a removal."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Literal, NamedTuple

import numpy as np
import sqlalchemy as sa
import torch
from PIL import Image

from genret.api import Record
from genret.catalog.codec import pack_codes, pack_texts
from genret.catalog.engine import connect_to, reading
from genret.catalog.place import place_of
from genret.catalog.rows import ImageRow, NewImage
from genret.catalog.schema import captions, images
from genret.catalog.store import Catalog
from genret.errors import UsageError
from genret.kit.images import content_hash, read_bytes
from genret.run import Run
from genret.serve.errors import Refused

Sort = Literal["newest", "oldest", "name"]
UNDO_SECONDS = 600
UNDO_IMAGES = 200
"""Removed pictures that can be brought back, the latest ones."""
KNOWN_FILTERS = 16
KNOWN_ROWS = 50_000


class Page(NamedTuple):
    rows: list[ImageRow]
    next: str | None
    total: int


class Known(NamedTuple):
    """Rows of one version of the catalog that have been asked for."""

    version: int
    by_id: dict[str, ImageRow]
    by_key: dict[int, ImageRow]

    def add(self, rows: list[ImageRow]) -> None:
        if len(self.by_id) > KNOWN_ROWS:
            self.by_id.clear()
            self.by_key.clear()
        self.by_id.update({row.image_id: row for row in rows})
        self.by_key.update({row.key: row for row in rows})


class Listing:
    """Reads of a run's catalog; each method sees its present version."""

    def __init__(self, run: Run):
        self.run = run
        self._database = connect_to(place_of(run.folder))
        self._filtered: OrderedDict[tuple[int, str], np.ndarray] = OrderedDict()
        self._sizes: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._known = Known(-1, {}, {})
        self._lock = Lock()

    @property
    def catalog(self) -> Catalog:
        return self.run.retriever.catalog

    def count(self) -> int:
        """How many pictures a search may find."""
        with self.catalog.snapshot() as snapshot:
            return len(self._keys(snapshot, ""))

    # ------------------------------------------------------------------------------------------------- lists
    def page(self, where: str, sort: Sort, limit: int, cursor: str) -> Page:
        """At most `limit` pictures after `cursor`, the `next` of the page before; pages never repeat a picture."""
        with self.catalog.snapshot() as snapshot:
            keys = self._keys(snapshot, where)
            if sort == "name":
                chosen, following = self._by_name(snapshot, keys, limit, cursor)
            else:
                chosen, following = _by_key(keys, sort, limit, cursor)
            return Page(snapshot.lookup(chosen), following, len(keys))

    def check(self, where: str) -> None:
        """`UsageError` if the filter is wrong."""
        with self.catalog.snapshot() as snapshot:
            self._keys(snapshot, where)

    def _keys(self, snapshot: Any, where: str) -> np.ndarray:
        known = snapshot.version, where
        with self._lock:
            if known in self._filtered:
                return self._filtered[known]
        keys = snapshot.searchable_keys()
        if where:
            keys = np.intersect1d(keys, snapshot.keys_where(where), assume_unique=True)
        with self._lock:
            self._filtered[known] = keys
            while len(self._filtered) > KNOWN_FILTERS:
                self._filtered.popitem(last=False)
        return keys

    def _by_name(self, snapshot: Any, keys: np.ndarray, limit: int, cursor: str) -> tuple[np.ndarray, str | None]:
        """Names are in an index of the database; what the filter leaves out is passed over."""
        after, chosen = "", list[int]()
        if cursor:
            row = self._row(snapshot, _number(cursor))
            after = row.image_id if row else ""
        statement = (
            sa.select(images.c.id, images.c.image_id).where(images.c.image_id > after).order_by(images.c.image_id)
        )
        with reading(self._database) as connection:
            for key, _ in connection.execution_options(yield_per=1000).execute(statement):
                at = int(np.searchsorted(keys, key))
                if at < len(keys) and keys[at] == key:
                    chosen.append(key)
                    if len(chosen) > limit:
                        break
        more = len(chosen) > limit
        return np.array(chosen[:limit], dtype=np.int64), str(chosen[limit - 1]) if more else None

    # ------------------------------------------------------------------------------------------------- one picture
    def row(self, name: str) -> ImageRow:
        """The picture with this opaque id; `Refused` 404 if there is none."""
        with self.catalog.snapshot() as snapshot:
            if (found := self._row(snapshot, _number(name))) is not None:
                return found
        raise Refused(404, "there is no such picture, or not any more")

    def rows(self, names: Sequence[str]) -> list[ImageRow]:
        """The pictures with these opaque ids; `Refused` 404 if one is gone."""
        keys = np.array([_number(name) for name in names], dtype=np.int64)
        with self.catalog.snapshot() as snapshot:
            if not np.isin(keys, self._keys(snapshot, "")).all():
                raise Refused(404, "one of the pictures named is not there any more")
            return snapshot.lookup(keys)

    def _row(self, snapshot: Any, key: int) -> ImageRow | None:
        keys = self._keys(snapshot, "")
        at = int(np.searchsorted(keys, key))
        if at >= len(keys) or keys[at] != key:
            return None
        known = self._rows_of(snapshot)
        row = known.by_key.get(key)
        if row is None:
            (row,) = snapshot.lookup(np.array([key]))
            known.add([row])
        return row

    def named(self, image_ids: Sequence[str]) -> list[ImageRow | None]:
        """The rows of pictures with these ids of the catalog, None for those that are gone."""
        with self.catalog.snapshot() as snapshot:
            known = self._rows_of(snapshot)
            found = {name: known.by_id.get(name) for name in image_ids}
            if new := [name for name, row in found.items() if row is None]:
                keys = snapshot.keys_of(new)
                rows = snapshot.lookup(keys[keys >= 0])
                known.add(rows)
                found |= {row.image_id: row for row in rows}
        return [found[name] for name in image_ids]

    def _rows_of(self, snapshot: Any) -> Known:
        """Answers name the same pictures again and again; a page asks for each by itself."""
        version = snapshot.version
        with self._lock:
            if self._known.version != version:
                self._known = Known(version, {}, {})
            return self._known

    def keys_of(self, image_ids: Sequence[str]) -> list[int]:
        """The keys of these pictures, -1 for those that are gone."""
        return self.catalog.keys_of(image_ids).tolist()

    def captions_of(self, key: int) -> list[str]:
        statement = sa.select(captions.c.text).where(captions.c.image_key == key).order_by(captions.c.position)
        with reading(self._database) as connection:
            return list(connection.execute(statement).scalars())

    def identifiers_of(self, key: int) -> list[list[str]]:
        """The symbols of each identifier."""
        rows = self.catalog.identifiers_of(np.array([key]))
        if rows.texts is not None:
            return [[text] for text in rows.texts]
        identifier = self.run.components.identifier
        if rows.codes is None or identifier is None:
            return []
        name = identifier.vokens.name
        return [[name(level, code) for level, code in enumerate(row) if code >= 0] for row in rows.codes.tolist()]

    def thumbnail(self, sha256: str) -> Path:
        return self.run.retriever.thumbnails.path(sha256)

    def thumbnail_size(self, sha256: str) -> tuple[int, int] | None:
        """Width and height, so that a page keeps the place free; None if there is no thumbnail."""
        with self._lock:
            if sha256 in self._sizes:
                return self._sizes[sha256]
        try:
            with Image.open(self.thumbnail(sha256)) as image:
                size = image.size
        except OSError:
            return None
        with self._lock:
            self._sizes[sha256] = size
            while len(self._sizes) > 50_000:
                self._sizes.popitem(last=False)
        return size

    def content(self, row: ImageRow) -> bytes:
        """The picture's own bytes, checked to be those that were indexed; `Refused` 404 if they are gone."""
        path = Path(row.uri)
        try:
            if row.split is None and path.is_absolute():
                data = read_bytes(path)
            else:
                data = self.run.dataset.read(Record(row.image_id, row.uri, (), row.metadata))
        except Exception:  # data sets of plugins raise anything
            raise Refused(404, "the picture's file is not on this machine; there is its thumbnail", "no_file") from None
        if content_hash(data) != row.sha256:
            raise Refused(404, "the picture's file has changed since it was indexed", "changed")
        return data


class Removed(NamedTuple):
    until: float
    image: NewImage


class Undo:
    """Removed pictures, for a while and in memory."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Removed] = OrderedDict()
        self._lock = Lock()

    def keep(self, name: str, image: NewImage) -> None:
        with self._lock:
            self._kept[name] = Removed(time.monotonic() + UNDO_SECONDS, image)
            while len(self._kept) > UNDO_IMAGES:
                self._kept.popitem(last=False)

    def take(self, name: str) -> NewImage:
        with self._lock:
            found = self._kept.pop(name, None)
        if found is None or found.until < time.monotonic():
            raise Refused(404, "this removal cannot be undone any more")
        return found.image


def whole(listing: Listing, row: ImageRow) -> NewImage:
    """Everything that the catalog has of a picture, to add it again."""
    keys = np.array([row.key])
    rows = listing.catalog.identifiers_of(keys)
    packed = list[bytes]()
    if rows.texts is not None:
        packed = pack_texts(rows.texts)
    elif rows.codes is not None:
        packed = pack_codes(torch.from_numpy(rows.codes.astype(np.int64)))
    vector = listing.catalog.features_of(keys)[0] if listing.catalog.feature_dim else None
    return NewImage(
        row.image_id, row.uri, row.sha256, packed, vector, row.metadata, row.split, row.searchable,
        listing.captions_of(row.key),
    )  # fmt: skip


def _by_key(keys: np.ndarray, sort: Sort, limit: int, cursor: str) -> tuple[np.ndarray, str | None]:
    if sort == "oldest":
        start = int(np.searchsorted(keys, _number(cursor), side="right")) if cursor else 0
        chosen, more = keys[start : start + limit], start + limit < len(keys)
    else:
        stop = int(np.searchsorted(keys, _number(cursor), side="left")) if cursor else len(keys)
        chosen, more = keys[max(0, stop - limit) : stop][::-1], stop > limit
    return chosen, str(int(chosen[-1])) if more and len(chosen) else None


def _number(name: str) -> int:
    """An opaque id or cursor → the key."""
    if not name.isascii() or not name.isdigit() or len(name) > 18:
        raise UsageError("ids and cursors are those that an answer has named")
    return int(name)
