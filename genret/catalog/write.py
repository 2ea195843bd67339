"""Adding images to a catalog within one transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from genret.catalog.codec import pack_vectors
from genret.catalog.rows import Ints, NewImage
from genret.catalog.schema import captions, features, identifiers, images, properties
from genret.errors import GenretError
from genret.interfaces import Skipped

CHUNK = 500
"""Images written at a time."""


class Upsert:
    """Collects images and writes them in chunks. `added` counts new and replaced ones."""

    def __init__(self, connection: Connection, feature_dim: str | None):
        self.added = 0
        self.skipped: list[Skipped] = []
        self._connection = connection
        self._width = None if feature_dim is None else int(feature_dim)
        self._waiting: dict[str, NewImage] = {}

    def add(self, row: NewImage) -> None:
        if not (_is_text(row.image_id) and _is_text(row.uri)):
            shown = row.uri.encode(errors="backslashreplace").decode()
            self.skipped.append(Skipped(shown, "its name is no valid UTF-8; rename the file"))
            return
        if row.image_id in self._waiting or len(self._waiting) >= CHUNK:
            self.flush()
        self._waiting[row.image_id] = row

    def flush(self) -> None:
        """Writes what was collected."""
        rows, self._waiting = list(self._waiting.values()), {}
        if not rows:
            return
        columns = (images.c.image_id, images.c.id, images.c.sha256, images.c.split, images.c.searchable)
        asked = select(*columns).where(images.c.image_id.in_([row.image_id for row in rows]))
        known = {image_id: rest for image_id, *rest in self._connection.execute(asked)}
        fresh: list[NewImage] = []
        changed: dict[int, NewImage] = {}
        recaptioned: list[int] = []
        for row in rows:
            if row.image_id not in known:
                fresh.append(row)
                continue
            key, sha256, split, searchable = known[row.image_id]
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
        self._insert(fresh)
        self._replace(changed, recaptioned)
        self.added += len(fresh) + len(changed)

    def _insert(self, rows: Sequence[NewImage]) -> None:
        if not rows:
            return
        self._connection.execute(insert(images), [_image(row) for row in rows])
        asked = select(images.c.image_id, images.c.id).where(images.c.image_id.in_([row.image_id for row in rows]))
        keys = {row.image_id: row.id for row in self._connection.execute(asked)}
        self._insert_parts({keys[row.image_id]: row for row in rows})

    def _replace(self, rows: dict[int, NewImage], recaptioned: list[int]) -> None:
        if not rows:
            return
        for table in (identifiers, features):
            self._connection.execute(delete(table).where(table.c.image_key.in_(list(rows))))
        self._connection.execute(delete(captions).where(captions.c.image_key.in_(recaptioned)))
        self._connection.execute(
            update(images).where(images.c.id == bindparam("key")),
            [{"key": key} | _image(row) for key, row in rows.items()],
        )
        self._insert_parts(rows)

    def _insert_parts(self, rows: dict[int, NewImage]) -> None:
        parts: dict[Any, list[dict[str, Any]]] = {identifiers: [], captions: [], features: []}
        for key, row in rows.items():
            parts[identifiers] += [{"image_key": key, "identifier": name} for name in dict.fromkeys(row.identifiers)]
            parts[captions] += [{"image_key": key, "position": i, "text": t} for i, t in enumerate(row.captions)]
        with_vector = [(key, row.vector) for key, row in rows.items() if row.vector is not None]
        if with_vector:
            for _, vector in with_vector:
                self._check_width(len(vector))
            vectors = torch.stack([vector.detach().cpu() for _, vector in with_vector])
            packed = pack_vectors(vectors)
            parts[features] = [
                {"image_key": key, "vector": blob} for (key, _), blob in zip(with_vector, packed, strict=True)
            ]
        for table, values in parts.items():
            if values:
                self._connection.execute(insert(table), values)

    def _check_width(self, width: int) -> None:
        if self._width is None:
            self._width = width
            set_property(self._connection, "feature_dim", str(width))
        if width != self._width:
            raise GenretError(
                f"the catalog holds vectors of width {self._width}, not {width}; train anew with this encoder"
            )


def delete_images(connection: Connection, keys: Ints) -> None:
    """Removes images with all that belongs to them (the other tables follow by their foreign keys)."""
    for start in range(0, len(keys), CHUNK):
        connection.execute(delete(images).where(images.c.id.in_(keys[start : start + CHUNK].tolist())))


def set_property(connection: Connection, key: str, value: str) -> None:
    if not connection.execute(update(properties).where(properties.c.key == key).values(value=value)).rowcount:
        connection.execute(insert(properties).values(key=key, value=value))


def _image(row: NewImage) -> dict[str, Any]:
    facts = dict(row.metadata)
    try:
        json.dumps(facts, allow_nan=False)
    except (TypeError, ValueError):
        raise GenretError(f"the metadata of image '{row.image_id}' are no plain JSON (text, finite numbers)") from None
    return {
        "image_id": row.image_id,
        "uri": row.uri,
        "sha256": row.sha256,
        "split": row.split,
        "searchable": row.searchable,
        "metadata": facts,
    }


def _is_text(name: str) -> bool:
    return name.encode(errors="ignore").decode() == name
