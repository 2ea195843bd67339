"""The catalog of images and identifiers: what is searched, by which identifiers, and how that changes.

Independent of models, tries and pixels. Images have integer keys, which stay the same while the image exists and are
never reused. One writer at a time; readers never wait and see only complete changes.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from sqlalchemy import update

from genret.api import IndexReport, Record, Skipped
from genret.catalog.bulk import insert_rows
from genret.catalog.engine import Database, connect_to, reading, writing
from genret.catalog.feed import move_to, next_version, take_turn
from genret.catalog.rows import CaptionRows, Changes, IdentifierRows, ImageRow, NewImage
from genret.catalog.schema import READABLE, SCHEMA_VERSION, images, metadata, properties
from genret.catalog.snapshot import Snapshot
from genret.catalog.write import Upsert, delete_images
from genret.errors import GenretError

__all__ = ["CaptionRows", "Catalog", "Changes", "IdentifierRows", "ImageRow", "NewImage", "Snapshot"]


class Catalog(Snapshot):
    """Created by `Catalog.create` or `Catalog.open`."""

    # ------------------------------------------------------------------------------------------------------- opening
    @classmethod
    def create(cls, where: str | Path, run_id: str = "", overwrite: bool = False) -> Catalog:
        """An empty catalog at a path or SQLAlchemy URL. `overwrite`: replaces an existing one."""
        database = connect_to(where)
        if database.tables() and not overwrite:
            raise GenretError(f"there is already a catalog at {database.name}; open it, or remove it first")
        if database.path is not None and not database.path.parent.is_dir():
            raise GenretError(f"cannot make {database.name}: there is no folder {database.path.parent}")
        with writing(database) as connection:
            if overwrite:
                metadata.drop_all(connection)
            metadata.create_all(connection)
            facts = {"schema": SCHEMA_VERSION, "run_id": run_id, "uid": uuid.uuid4().hex, "highest_key": 0}
            insert_rows(connection, properties, [(key, str(value)) for key, value in facts.items()])
            move_to(connection, next_version(0))
        return cls(database)

    @classmethod
    def open(
        cls,
        where: str | Path,
        run_id: str | None = None,
        upgrade: Callable[[Database], None] | None = None,
        *,
        create: bool = False,
    ) -> Catalog:
        """Opens an existing catalog; `upgrade` changes one of an older genret first. `create`: creates an empty one if
        there is none. `run_id`: the run that it must belong to."""
        database = connect_to(where)
        tables = database.tables()
        if create and "properties" not in tables:
            return cls.create(where, run_id or "")
        if database.path is not None and not database.path.exists():
            raise GenretError(
                f"there is no catalog {database.name}; is the run finished? (genret train --run DIR --resume)"
            )
        catalog = cls(database)
        schema = catalog._number("schema") if "properties" in tables else 0
        if schema < 1:
            raise GenretError(f"{database.name} is no catalog of genret")
        if schema > SCHEMA_VERSION:
            raise GenretError(f"{database.name} was made by a newer genret; upgrade genret to use it")
        if run_id is not None and catalog.run_id != run_id:
            raise GenretError(
                f"{database.name} belongs to another run ({catalog.run_id or 'unnamed'}, not {run_id}): its "
                "identifiers mean something else here; put this run's own catalog back or train anew"
            )
        if schema < (SCHEMA_VERSION if database.writable else READABLE):
            if upgrade is None:
                raise GenretError(f"{database.name} was made by an older genret; upgrade it first: genret catalog")
            upgrade(database)
        return catalog

    def close(self) -> None:
        """Closes all connections; the last one leaves a single file."""
        self._database.engine.dispose()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def path(self) -> Path | None:
        """The SQLite file; None for a database elsewhere."""
        return self._database.path

    @property
    def name(self) -> str:
        """The name shown to people: the path, or the URL without its password."""
        return self._database.name

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Many reads of one version of the catalog, unaffected by writers. For one thread, and for a short time:
        the database must keep this version meanwhile."""
        with reading(self._database) as connection:
            yield Snapshot(self._database, connection)

    # ------------------------------------------------------------------------------------------------------- changing
    def add(self, rows: Iterable[NewImage]) -> IndexReport:
        """Adds images, all or none. An image with a known id and the same content is skipped as already there; one with
        a known id and new content replaces the old image (but a user's image never replaces one of the dataset)."""
        with writing(self._database) as connection:
            take_turn(connection)
            there = Snapshot(self._database, connection)
            version = next_version(there.version)
            upsert = Upsert(connection, version, there.highest_key(), there.feature_dim)
            for row in rows:
                upsert.add(row)
            upsert.finish()
            if upsert.added:
                move_to(connection, version)
            return IndexReport(upsert.added, 0, upsert.skipped)

    def rename(self, new: Mapping[str, Record]) -> int:
        """Replaces ids, locations and metadata of images, given by their old ids, by those of these records, all or
        none; they may change places. An image that has one of the new ids and gets none itself is removed → how many.
        """
        with writing(self._database) as connection:
            take_turn(connection)
            there = Snapshot(self._database, connection)
            keys = there.keys_of([record.image_id for record in new.values() if record.image_id not in new])
            replaced, version = keys[keys >= 0].tolist(), next_version(there.version)
            delete_images(connection, replaced, version)
            move_to(connection, version)
            for place, old in enumerate(new):  # ids are unique at every moment
                statement = update(images).where(images.c.image_id == old)
                connection.execute(statement.values(image_id=f"moving:{place}"))
            for place, record in enumerate(new.values()):
                facts = {"image_id": record.image_id, "uri": record.uri, "metadata": dict(record.metadata)}
                connection.execute(update(images).where(images.c.image_id == f"moving:{place}").values(facts))
            return len(replaced)

    def remove(self, image_ids: Sequence[str]) -> IndexReport:
        """Removes images with everything that belongs to them."""
        wanted = list(dict.fromkeys(image_ids))
        with writing(self._database) as connection:
            take_turn(connection)
            there = Snapshot(self._database, connection)
            version, keys = next_version(there.version), there.keys_of(wanted)
            unknown = [Skipped(wanted[i], "there is no image of this id") for i in np.flatnonzero(keys < 0)]
            if len(unknown) < len(wanted):
                delete_images(connection, keys[keys >= 0].tolist(), version)
                move_to(connection, version)
        return IndexReport(0, len(wanted) - len(unknown), unknown)
