"""Copies a whole catalog into another database: keys, versions and history stay, so caches of it stay valid."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from sqlalchemy import JSON, Text, cast, make_url, select
from sqlalchemy.exc import ArgumentError

from genret.catalog.bulk import fetch, insert_rows
from genret.catalog.engine import Database, connect_to, reading, writing
from genret.catalog.place import FILE, POINTER, place_of
from genret.catalog.schema import metadata
from genret.catalog.snapshot import Snapshot
from genret.catalog.store import Catalog
from genret.errors import GenretError, UsageError
from genret.kit.files import write_text
from genret.shell.migrate import upgrade


def move_catalog(run: Path, target: str) -> int:
    """Moves the run's catalog from its file to the database at a URL → the number of images. Later changes to the file
    are not moved: the file is kept as `catalog.moved.sqlite`. Continues an interrupted move.

    Of a SQLite file the absolute path is noted, since the run is opened from other folders, too. `UsageError` for a
    database in memory and for the file that the catalog is in already."""
    target = _lasting(target, run)
    count = copy_catalog(place_of(run), target)
    write_text(run / POINTER, target + "\n")
    if (run / FILE).exists():
        (run / FILE).replace(run / "catalog.moved.sqlite")
    return count


def _lasting(target: str, run: Path) -> str:
    if not target.startswith("sqlite"):
        return target
    with suppress(ArgumentError):  # said when it is opened
        url = make_url(target)
        if url.database in (None, "", ":memory:"):
            raise UsageError(f"--to {target} is a database in memory, which ends with this command; name a file")
        file = Path(str(url.database)).expanduser().absolute()
        if file.exists() and (run / FILE).exists() and file.samefile(run / FILE):
            raise UsageError(f"--to {target} is where the catalog is already")
        return url.set(database=str(file)).render_as_string(hide_password=False)
    return target


def copy_catalog(source: str | Path, target: str | Path) -> int:
    """Copies one version of the catalog at `source` to an empty database, in one transaction → the number of images.
    A database that already has this version is left unchanged."""
    Catalog.open(source, upgrade=upgrade).close()  # upgrades an older one
    old, new = connect_to(source), connect_to(target)
    copy = Snapshot(new)
    try:
        there = new.tables()
        if not there:
            _copy(old, new)
        elif "properties" not in there or copy.state != Snapshot(old).state:
            raise GenretError(f"{new.name} is not empty; name a database or schema of its own for this catalog")
        return copy.image_count()
    finally:
        old.engine.dispose()
        new.engine.dispose()


def _copy(old: Database, new: Database) -> None:
    with reading(old) as source, writing(new) as target:
        metadata.create_all(target)
        for table in metadata.sorted_tables:
            # JSON as text, because some databases' drivers would parse it
            columns = [cast(column, Text) if isinstance(column.type, JSON) else column for column in table.columns]
            for rows in fetch(source, select(*columns)):
                insert_rows(target, table, [tuple(row) for row in rows])
