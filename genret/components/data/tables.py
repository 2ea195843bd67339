"""A table of captions → the images it names, each with its split, captions and metadata.

`layouts` parses the table. Whether the images exist is not checked here.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from genret.components.data.layouts import Format, Layout, TableRow, opened
from genret.components.data.paths import below
from genret.components.data.text import captions_in
from genret.errors import GenretError, did_you_mean, one_line
from genret.toolbox.splits import scalars

log = logging.getLogger(__name__)

IMAGE, CAPTION = "image", "caption"
PUBLISHED = (
    (IMAGE, "captions"),
    ("image_name", "comment"),  # Flickr30k's results.csv
    ("filename", "raw"),  # Karpathy's splits as a table, as the hub has Flickr30k
    ("file_name", "text"),  # metadata.csv of Hugging Face's image folders
    ("file_name", CAPTION),  # COCO
    ("filename", CAPTION),
    ("image_path", CAPTION),
    ("filepath", CAPTION),
    ("filepath", "title"),  # open_clip
)
"""Columns of the image and of its captions in published tables."""


class Columns(NamedTuple):
    image: str
    caption: str
    split: str


class TableImage:
    """One image of a table."""

    __slots__ = ("captions", "metadata", "split")

    def __init__(self, split: str | None, metadata: dict[str, Any]):
        self.split = split
        self.metadata = metadata
        self.captions: list[str] = []


class Table(NamedTuple):
    images: dict[str, TableImage]
    """By path below the images folder, in the order of their first rows."""
    splits: frozenset[str]
    """Empty without a split column."""


def read_table(
    file: Path, columns: Columns, folder: Path, format: Format, delimiter: str | None, encoding: str | None
) -> Table:
    """Reads the captions of images below `folder`. With default `columns`, published names are accepted too."""
    choices = _choices(columns)

    def fits(values: Mapping[str, Any]) -> bool:
        return any(image in values and caption in values for image, caption in choices)

    with opened(file, format, delimiter, encoding, fits) as layout:
        images: dict[str, TableImage] = {}
        splits: Counter[str] = Counter()
        found: Columns | None = None
        for row in layout.rows:
            found = found or _columns(row.values, columns, choices)
            _add(images, splits, row, found, file, folder)
        if not images:
            raise GenretError(f"{file} has no rows")
        if len(splits) > 1 and "" in splits:
            raise GenretError(f"{file}: some rows have a '{columns.split}' and others not; give all rows one or none")
        assert found is not None
        _tell(file, layout, found, images, splits)
    return Table(images, frozenset(splits) - {""})


def _choices(columns: Columns) -> list[tuple[str, str]]:
    """Pairs of columns: first the named ones, then published ones if the names are defaults."""
    published = [
        pair for pair in PUBLISHED if columns.image in (IMAGE, pair[0]) and columns.caption in (CAPTION, pair[1])
    ]
    return [columns[:2], *published]


def _columns(values: Mapping[str, Any], columns: Columns, choices: Iterable[tuple[str, str]]) -> Columns:
    image, caption = next((pair for pair in choices if pair[0] in values and pair[1] in values), columns[:2])
    return Columns(image, caption, columns.split)


def _add(
    images: dict[str, TableImage], splits: Counter[str], row: TableRow, columns: Columns, file: Path, folder: Path
) -> None:
    place, values = f"{file} {row.place}", dict(row.values)
    name, given, split = (values.pop(column, None) for column in columns)
    if not isinstance(name, str) or not name:
        raise _missing(place, "image", columns.image, row.values)
    captions = captions_in(given) if columns.caption in row.values else None
    if captions is None:
        raise _missing(place, "caption", columns.caption, row.values)
    if split is not None and (not isinstance(split, str) or not split):
        raise GenretError(f"{place}: the split of {name} is {split!r}, not a name")
    name = below(name, place, folder)
    image = images.get(name)
    if image is None:
        image = images[name] = TableImage(split, scalars(values))
        splits[split or ""] += 1
    if image.split != split:
        raise GenretError(f"{place}: {name} is in split {split!r} here and in {image.split!r} above")
    image.captions.extend(captions)


def _missing(place: str, what: str, column: str, values: Mapping[str, Any]) -> GenretError:
    there = [name for name in values if name != column]
    if column in values:
        has = ""
    elif len(there) == 1:
        has = f"; its only column is {one_line(repr(there[0]))}"
    else:
        has = f"; its columns are {one_line(', '.join(map(repr, there)))}"
    return GenretError(
        f"{place}: no {what} in column '{column}'{did_you_mean(column, there)}{has}; set dataset.{what}_column"
        + (" or dataset.delimiter" if len(there) == 1 else "")
    )


def _tell(
    file: Path, layout: Layout, columns: Columns, images: Mapping[str, TableImage], splits: Mapping[str, int]
) -> None:
    """Reports in one line how the table was read: as a warning if anything was guessed."""
    captions = sum(len(image.captions) for image in images.values())
    named = f"image '{columns.image}', caption '{columns.caption}'"
    parts = [f"{file} was read as {layout.name}, {named}: {len(images):,} images, {captions:,} captions"]
    if "" not in splits:
        parts.append("splits " + one_line(", ".join(f"{split} ({count:,})" for split, count in splits.items())))
    usual = layout.usual and not layout.remarks and columns[:2] == (IMAGE, CAPTION)
    log.log(logging.INFO if usual else logging.WARNING, "; ".join([*parts, *layout.remarks]))
