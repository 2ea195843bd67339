"""Where a run's catalog is: `catalog.sqlite` in its directory, or the database named by its `catalog.url`."""

from __future__ import annotations

from pathlib import Path

from genret.errors import GenretError, one_line
from genret.kit.images import content_hash

FILE = "catalog.sqlite"
POINTER = "catalog.url"
"""One line, an SQLAlchemy URL; `genret catalog --to` writes it."""


def place_of(run: Path) -> str | Path:
    """What `Catalog.open` takes."""
    pointer = run / POINTER
    if not pointer.exists():
        return run / FILE
    try:
        if not (url := pointer.is_file() and pointer.read_text().strip()):
            raise OSError("empty, or no regular file")
        return url
    except (OSError, UnicodeDecodeError) as error:
        raise GenretError(f"cannot read {pointer} ({one_line(error)}); it has to hold the URL of the catalog") from None


def run_id_of(run: Path) -> str:
    """What must match between a run and its catalog: identifiers are valid only for the models that made them."""
    return content_hash(b"".join(stage.read_bytes() for stage in sorted(run.glob("*/stage.json"))))[:20]


def has_catalog(run: Path) -> bool:
    """Whether training got as far as the catalog, and it still exists."""
    return (run / FILE).exists() or (run / POINTER).exists()
