"""Adding images to a catalog within one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from genret.api import Skipped
from genret.catalog.bulk import among, insert_rows
from genret.catalog.codec import pack_vectors
from genret.catalog.engine import as_json
from genret.catalog.rows import NewImage, is_text
from genret.catalog.schema import captions, features, identifiers, images, outdated, properties
from genret.errors import GenretError

CHUNK = 5_000
"""Number of images written at a time."""


class Upsert:
    """Collects images and writes them in chunks, as one version. `added` counts new and replaced ones."""

    def __init__(self, connection: Connection, version: int, highest_key: int, width: int):
        """`width`: of the stored vectors, 0 if there are none."""
        self.added = 0
        self.skipped: list[Skipped] = []
        self._connection = connection
        self._version = version
        self._highest_key = highest_key
        self._width = width
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
        """Writes the images that are still buffered."""
        self._flush()
        set_property(self._connection, "highest_key", str(self._highest_key))
        if self._width:
            set_property(self._connection, "feature_dim", str(self._width))

    def _flush(self) -> None:
        rows, self._waiting = self._waiting, {}
        columns = (images.c[name] for name in ("id", "image_id", "sha256", "split", "searchable"))
        parts = among(self._connection, select(*columns), images.c.image_id, list(rows))
        known = {row.image_id: row for part in parts for row in part}
        written: dict[int, NewImage] = {}
        same: list[int] = []
        for image_id, row in rows.items():
            old = known.get(image_id)
            if old is None:
                self._highest_key += 1
                written[self._highest_key] = row
            elif old.sha256 == row.sha256 and (old.searchable or not row.searchable):
                self.skipped.append(Skipped(row.uri, "already there"))
            elif old.split is not None and row.split is None and old.sha256 != row.sha256:
                # the images of an evaluation must not change when a user adds some
                reason = f"another image of the data set's split '{old.split}' has the id '{image_id}'; rename the file"
                self.skipped.append(Skipped(row.uri, reason))
            else:
                # the same image was stored without being searchable; it becomes searchable and stays in its split
                written[old.id] = row._replace(split=old.split if row.split is None else row.split)
                if old.sha256 == row.sha256 and not row.captions:
                    same.append(old.id)
        for key, texts in self._captions(same).items():
            written[key] = written[key]._replace(captions=texts)
        delete_images(self._connection, [row.id for row in known.values() if row.id in written], self._version)
        self._insert(written)
        self.added += len(written)

    def _captions(self, keys: Sequence[int]) -> dict[int, list[str]]:
        statement = select(captions.c.image_key, captions.c.text).order_by(captions.c.position)
        found: dict[int, list[str]] = {}
        for part in among(self._connection, statement, captions.c.image_key, keys):
            for key, text in part:
                found.setdefault(key, []).append(text)
        return found

    def _insert(self, rows: dict[int, NewImage]) -> None:
        insert_rows(self._connection, images, [self._columns(key, row) for key, row in rows.items()])
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
            import torch  # here: what only reads a catalog may do without

            packed = pack_vectors(torch.stack(list(vectors.values())))
            insert_rows(self._connection, features, list(zip(vectors, packed, strict=True)))

    def _columns(self, key: int, row: NewImage) -> tuple[Any, ...]:
        """Of table `images`."""
        try:
            facts = as_json(dict(row.metadata))
        except (TypeError, ValueError, RecursionError):
            reason = "are no plain JSON (text, finite numbers)"
            raise GenretError(f"the metadata of image '{row.image_id}' {reason}") from None
        return (key, row.image_id, row.uri, row.sha256, row.split, row.searchable, facts, self._version)


def delete_images(connection: Connection, keys: Sequence[int], version: int) -> None:
    """Removes images with all that belongs to them: other tables follow by their foreign keys."""
    for _ in among(connection, delete(images), images.c.id, keys):
        pass
    # an image may occur twice in one version
    known = set(connection.execute(select(outdated.c.image_key).where(outdated.c.version == version)).scalars())
    insert_rows(connection, outdated, [(version, key) for key in keys if key not in known])


def set_property(connection: Connection, key: str, value: str) -> None:
    if not connection.execute(update(properties).where(properties.c.key == key).values(value=value)).rowcount:
        connection.execute(insert(properties).values(key=key, value=value))
