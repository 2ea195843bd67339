"""A whole catalog into another database, as it is: keys, versions and history stay, and so caches of it stay true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, inspect, select

from genret.catalog.bulk import insert_rows
from genret.catalog.engine import connect_to, friendly, reading, writing
from genret.catalog.place import POINTER, place_of
from genret.catalog.schema import metadata
from genret.catalog.store import Catalog
from genret.catalog.stream import fetch
from genret.errors import GenretError


def move_catalog(run: Path, target: str) -> int:
    """The run's catalog from its file to the database at a URL → how many images it has. What is added to the file
    meanwhile stays there: the file is kept as `catalog.moved.sqlite`."""
    source = place_of(run)
    count = copy_catalog(source, target)
    partial = run / f"{POINTER}.partial"
    partial.write_text(target + "\n")
    partial.replace(run / POINTER)
    if isinstance(source, Path):
        source.replace(source.with_name("catalog.moved.sqlite"))
    return count


def copy_catalog(source: str | Path, target: str | Path) -> int:
    """Copies one version of the catalog at `source` to an empty place, in one transaction → how many images it has."""
    Catalog.open(source).close()  # brings an older one up to date
    old, new = connect_to(source), connect_to(target)
    with friendly(new.name):
        if inspect(new.engine).get_table_names():
            raise GenretError(f"{new.name} is not empty; name a database or schema of its own for this catalog")
    try:
        with reading(old) as there, writing(new) as here:
            metadata.create_all(here)
            for table in metadata.sorted_tables:
                names = [column.name for column in table.columns]
                as_json = [isinstance(column.type, JSON) for column in table.columns]
                for rows in fetch(there, select(table)):
                    insert_rows(here, table, names, [_plain(row, as_json) for row in rows])
    finally:
        old.engine.dispose()
        new.engine.dispose()
    with Catalog.open(target) as catalog:
        return catalog.image_count()


def _plain(row: Any, as_json: list[bool]) -> tuple[Any, ...]:
    """JSON as text, which some databases' drivers have read already."""
    return tuple(
        json.dumps(value) if is_json and not isinstance(value, str) else value
        for value, is_json in zip(row, as_json, strict=True)
    )
