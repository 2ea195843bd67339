"""Searches with the thumbnails of what they found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from PIL import Image

from genret.api import Hit, SearchResult
from genret.errors import BadImage
from genret.kit.text import clean
from genret.run import Run
from genret.share.picture import SheetRow
from genret.toolbox.names import name_of


def thumbnails_of(run: Run, hits: Iterable[Hit]) -> Iterator[tuple[Hit, Image.Image | None]]:
    """Each hit with its thumbnail; None where the run was pulled without pictures."""
    catalog, thumbnails, found = run.retriever.catalog, run.retriever.thumbnails, list(hits)
    rows = catalog.lookup(catalog.keys_of([hit.image_id for hit in found]))
    for hit, row in zip(found, rows, strict=True):
        try:
            yield hit, thumbnails.open(row.sha256)
        except BadImage:
            yield hit, None


def sheet_rows(run: Run, results: Iterable[SearchResult]) -> list[SheetRow]:
    """What `contact_sheet` draws of these searches."""
    return [
        SheetRow(
            result.query,
            [
                (picture, f"{hit.rank}.  {hit.score:.3f}\n{clean(name_of(hit))}")
                for hit, picture in thumbnails_of(run, result.hits)
            ],
        )
        for result in results
    ]
