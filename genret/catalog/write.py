"""Adding images to a catalog within one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from genret.api import Skipped
from genret.catalog.bulk import among, insert_rows
from genret.catalog.codec import pack_vectors
from genret.catalog.engine import as_json
from genret.catalog.rows import Ints, NewImage, is_text
from genret.catalog.schema import captions, features, identifiers, images, outdated, properties
from genret.errors import GenretError

CHUNK = 5_000
"""Images written at a time."""


class Known(NamedTuple):
    """What the catalog holds under an image's id."""

    key: int
    sha256: str
    split: str | None
    searchable: bool


class Upsert:
    """Collects images and writes them in chunks, as those of one version. `added` counts new and replaced ones."""

    def __init__(self, connection: Connection, version: int):
        self.added = 0
        self.skipped: list[Skipped] = []
        self._connection = connection
        self._version = version
        facts = dict(connection.execute(select(properties.c.key, properties.c.value)).all())
        self._width = int(facts.get("feature_dim", 0))
        """0 as long as there are no vectors."""
        self._highest_key = int(facts["highest_key"])
        self._waiting: dict[str, NewImage] = {}

    def add(self, row: NewImage) -> None:
        if not (is_text(row.image_id) and is_text(row.uri)):
            shown = row.uri.encode(errors="backslashreplace").decode()
            self.skipped.append(Skipped(shown, "its name is no valid UTF-8; rename the file"))
            return
        if row.image_id in self._waiting or len(self._waiting) >= CHUNK:
            self._flush()
        self._waiting[row.image_id] = row

    def finish(self) -> None:
        """Writes what is still to be written."""
        self._flush()
        set_property(self._connection, "highest_key", str(self._highest_key))
        if self._width:
            set_property(self._connection, "feature_dim", str(self._width))

    def _flush(self) -> None:
        rows, self._waiting = self._waiting, {}
        columns = (images.c.image_id, images.c.id, images.c.sha256, images.c.split, images.c.searchable)
        parts = among(self._connection, select(*columns), images.c.image_id, list(rows))
        known = {row[0]: Known(*row[1:]) for part in parts for row in part}
        new: dict[int, NewImage] = {}
        changed: dict[int, NewImage] = {}
        recaptioned: list[int] = []
        for image_id, row in rows.items():
            if image_id not in known:
                self._highest_key += 1
                new[self._highest_key] = row
                continue
            key, sha256, split, searchable = known[image_id]
            if sha256 == row.sha256 and (searchable or not row.searchable):
                self.skipped.append(Skipped(row.uri, "already there"))
            elif split is not None and row.split is None and sha256 != row.sha256:
                # what is evaluated must not change because somebody adds pictures
                reason = f"another image of the data set's split '{split}' has the id '{row.image_id}'; rename the file"
                self.skipped.append(Skipped(row.uri, reason))
            else:
                # the same picture, so far only known, becomes one that is searched; it stays in its split
                changed[key] = row._replace(split=split) if split is not None and row.split is None else row
                if row.captions or sha256 != row.sha256:
                    recaptioned.append(key)
        insert_rows(self._connection, images, [self._columns(key, row) for key, row in new.items()])
        if changed:
            self._change(changed, recaptioned)
        self._insert_parts(new | changed)
        self.added += len(new) + len(changed)

    def _columns(self, key: int, row: NewImage) -> tuple[Any, ...]:
        """Of table `images`."""
        try:
            facts = as_json(dict(row.metadata))
        except (TypeError, ValueError, RecursionError):
            reason = "are no plain JSON (text, finite numbers)"
            raise GenretError(f"the metadata of image '{row.image_id}' {reason}") from None
        return (key, row.image_id, row.uri, row.sha256, row.split, row.searchable, facts, self._version)

    def _change(self, rows: dict[int, NewImage], recaptioned: Sequence[int]) -> None:
        """Writes the images themselves anew, and takes out what no longer holds of them."""
        names = images.columns.keys()
        values = [
            dict(zip(names, self._columns(key, row), strict=True)) | {"key": key, "metadata": dict(row.metadata)}
            for key, row in rows.items()
        ]
        self._connection.execute(update(images).where(images.c.id == bindparam("key")), values)
        for table, keys in ((identifiers, list(rows)), (features, list(rows)), (captions, recaptioned)):
            delete_among(self._connection, table.c.image_key, keys)
        mark_outdated(self._connection, list(rows), self._version)

    def _insert_parts(self, rows: dict[int, NewImage]) -> None:
        named = [(key, name, row.searchable) for key, row in rows.items() for name in dict.fromkeys(row.identifiers)]
        insert_rows(self._connection, identifiers, named)
        texts = [(key, place, text) for key, row in rows.items() for place, text in enumerate(row.captions)]
        insert_rows(self._connection, captions, texts)
        vectors = {key: row.vector for key, row in rows.items() if row.vector is not None}
        for vector in vectors.values():
            self._width = self._width or len(vector)
            if len(vector) != self._width:
                raise GenretError(
                    f"the catalog holds vectors of width {self._width}, not {len(vector)}; train anew with this encoder"
                )
        if vectors:
            packed = pack_vectors(torch.stack(list(vectors.values())))
            insert_rows(self._connection, features, list(zip(vectors, packed, strict=True)))


def delete_images(connection: Connection, keys: Ints, version: int) -> None:
    """Removes images with all that belongs to them (the other tables follow by their foreign keys)."""
    delete_among(connection, images.c.id, keys.tolist())
    mark_outdated(connection, keys.tolist(), version)


def delete_among(connection: Connection, column: Any, keys: Sequence[int]) -> None:
    for _ in among(connection, delete(column.table), column, keys):
        pass


def mark_outdated(connection: Connection, keys: Sequence[int], version: int) -> None:
    """These images' identifiers of before `version` hold no more; an image may come twice in one version."""
    known = set(connection.execute(select(outdated.c.image_key).where(outdated.c.version == version)).scalars())
    insert_rows(connection, outdated, [(version, key) for key in keys if key not in known])


def set_property(connection: Connection, key: str, value: str) -> None:
    if not connection.execute(update(properties).where(properties.c.key == key).values(value=value)).rowcount:
        connection.execute(insert(properties).values(key=key, value=value))
