"""Adding images to a catalog within one transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from genret.api import Skipped
from genret.catalog.bulk import insert_rows, select_among
from genret.catalog.codec import pack_vectors
from genret.catalog.rows import Ints, NewImage, is_text
from genret.catalog.schema import captions, features, identifiers, images, outdated, properties
from genret.errors import GenretError

CHUNK = 5_000
"""Images written at a time."""
KEYS_AT_A_TIME = 500
"""Values in one `IN (...)`: every SQLite allows 999."""

_as_json = json.JSONEncoder(allow_nan=False).encode
_IMAGE = ("id", "image_id", "uri", "sha256", "split", "searchable", "metadata", "version")


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
        self._width = int(facts["feature_dim"]) if "feature_dim" in facts else None
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
        if self._width is not None:
            set_property(self._connection, "feature_dim", str(self._width))

    def _flush(self) -> None:
        rows, self._waiting = self._waiting, {}
        known = self._known(list(rows))
        written: dict[int, NewImage] = {}
        changed: dict[int, NewImage] = {}
        recaptioned: list[int] = []
        for image_id, row in rows.items():
            if image_id not in known:
                self._highest_key += 1
                written[self._highest_key] = row
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
        if changed:
            self._take_out(list(changed), recaptioned)
        insert_rows(self._connection, images, _IMAGE, [_image(key, row, self._version) for key, row in written.items()])
        self._insert_parts(written | changed)
        if changed:
            values = [dict(zip(_IMAGE, _image(key, row, self._version), strict=True)) for key, row in changed.items()]
            change = update(images).where(images.c.id == bindparam("key"))
            change = change.values({name: bindparam(name) for name in _IMAGE[1:]})
            self._connection.execute(
                change, [value | {"key": value["id"], "metadata": json.loads(value["metadata"])} for value in values]
            )
        self.added += len(written) + len(changed)

    def _known(self, image_ids: Sequence[str]) -> dict[str, Known]:
        columns = (images.c.image_id, images.c.id, images.c.sha256, images.c.split, images.c.searchable)
        found = select_among(self._connection, select(*columns), images.c.image_id, image_ids)
        return {row[0]: Known(*row[1:]) for rows in found for row in rows}

    def _take_out(self, keys: Sequence[int], recaptioned: Sequence[int]) -> None:
        """What no longer holds of images that are replaced."""
        for table, some in ((identifiers, keys), (features, keys), (captions, recaptioned)):
            gone = delete(table).where(table.c.image_key.in_(bindparam("keys", expanding=True)))
            for start in range(0, len(some), KEYS_AT_A_TIME):
                self._connection.execute(gone, {"keys": some[start : start + KEYS_AT_A_TIME]})
        mark_outdated(self._connection, keys, self._version)

    def _insert_parts(self, rows: dict[int, NewImage]) -> None:
        names = [(key, name, row.searchable) for key, row in rows.items() for name in dict.fromkeys(row.identifiers)]
        insert_rows(self._connection, identifiers, ("image_key", "identifier", "searchable"), names)
        texts = [(key, place, text) for key, row in rows.items() for place, text in enumerate(row.captions)]
        insert_rows(self._connection, captions, ("image_key", "position", "text"), texts)
        vectors = {key: row.vector for key, row in rows.items() if row.vector is not None}
        for width in dict.fromkeys(map(len, vectors.values())):
            self._check_width(width)
        if vectors:
            packed = zip(vectors, pack_vectors(torch.stack(list(vectors.values()))), strict=True)
            insert_rows(self._connection, features, ("image_key", "vector"), list(packed))

    def _check_width(self, width: int) -> None:
        if self._width is None:
            self._width = width
        if width != self._width:
            raise GenretError(
                f"the catalog holds vectors of width {self._width}, not {width}; train anew with this encoder"
            )


def delete_images(connection: Connection, keys: Ints, version: int) -> None:
    """Removes images with all that belongs to them (the other tables follow by their foreign keys)."""
    for start in range(0, len(keys), KEYS_AT_A_TIME):
        some = keys[start : start + KEYS_AT_A_TIME].tolist()
        connection.execute(delete(images).where(images.c.id.in_(bindparam("keys", expanding=True))), {"keys": some})
    mark_outdated(connection, keys.tolist(), version)


def mark_outdated(connection: Connection, keys: Sequence[int], version: int) -> None:
    """These images' identifiers of before `version` hold no more; an image may come twice in one version."""
    there = select(outdated.c.image_key).where(outdated.c.version == version)
    known = set(connection.execute(there).scalars())
    insert_rows(connection, outdated, ("version", "image_key"), [(version, key) for key in keys if key not in known])


def take_turn(connection: Connection) -> None:
    """Other writers wait from here on. SQLite's have the file to themselves already; others queue for this row."""
    connection.execute(select(properties.c.value).where(properties.c.key == "uid").with_for_update())


def set_property(connection: Connection, key: str, value: str) -> None:
    if not connection.execute(update(properties).where(properties.c.key == key).values(value=value)).rowcount:
        connection.execute(insert(properties).values(key=key, value=value))


def _image(key: int, row: NewImage, version: int) -> tuple[Any, ...]:
    try:
        facts = _as_json(dict(row.metadata))
    except (TypeError, ValueError):
        raise GenretError(f"the metadata of image '{row.image_id}' are no plain JSON (text, finite numbers)") from None
    return (key, row.image_id, row.uri, row.sha256, row.split, row.searchable, facts, version)
