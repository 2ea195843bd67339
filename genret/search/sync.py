"""The images given to a retriever that its catalog does not have yet, decoded, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice, repeat, takewhile
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from genret.api import IndexReport, Record, Skipped
from genret.catalog.store import Catalog, NewImage
from genret.errors import BadImage
from genret.kit.encode import LEAST_SIDE, Made, in_threads, opened
from genret.kit.images import content_hash, decode_image
from genret.search.thumbnails import Thumbnails

IMAGES = 500
"""Number of images compared with the catalog at a time."""
BATCH = 32
"""Number of images encoded at a time."""
WRITTEN = 4
"""Number of batches written at a time."""

Source = tuple[Record, Callable[[], bytes]]
"""An image without its bytes, and the function that reads them."""


class NewContent(NamedTuple):
    """An image that must be encoded."""

    record: Record
    sha256: str
    image: Image.Image
    replaces: bool
    """Whether the catalog has another image with this id"""


def ahead(source: Iterator[Made]) -> Iterator[Made]:
    """The items of a source; each is made in another thread while the one before is used."""
    return takewhile(lambda item: item is not None, in_threads(repeat(partial(next, source, None)), 2, 1))


class Sync:
    """Compares images with a catalog by content, and adds those that it lacks, with their thumbnails."""

    def __init__(self, catalog: Catalog, thumbnails: Thumbnails):
        self._skipped: list[Skipped] = []
        self._added = self._updated = self._unchanged = 0
        self._catalog, self._thumbnails = catalog, thumbnails

    def report(self) -> IndexReport:
        return IndexReport(self._added, 0, self._skipped, self._updated, unchanged=self._unchanged)

    def new(self, images: Iterable[Source]) -> Iterator[NewContent]:
        """The images that must be encoded, decoded by several threads."""
        with closing(in_threads(self._calls(iter(images)), 2 * BATCH)) as looked_at:
            for found in looked_at:
                if isinstance(found, NewContent):
                    yield found
                elif found is None:
                    self._unchanged += 1
                else:
                    self._skipped.append(found)

    def _calls(self, source: Iterator[Source]) -> Iterator[Callable[[], NewContent | Skipped | None]]:
        while chunk := list(islice(source, IMAGES)):
            known = self._catalog.contents_of([record.image_id for record, _ in chunk])
            yield from (partial(self._look, *image, known.get(image[0].image_id)) for image in chunk)

    def _look(self, record: Record, read: Callable[[], bytes], before: str | None) -> NewContent | Skipped | None:
        """None for an image that is there already; `before`: the content that the catalog has of it."""
        try:
            data = read()
            if before == (sha256 := content_hash(data)):
                return None
            image = opened(partial(decode_image, data, record.uri, side=LEAST_SIDE))
        except (BadImage, OSError) as error:
            return Skipped(record.uri, str(error))
        self._thumbnails.save(sha256, image)
        return NewContent(record, sha256, image, before is not None)

    def add(self, new: Sequence[NewContent], vectors: Tensor, packed: Sequence[Sequence[bytes]]) -> None:
        """Adds images to the catalog: their vectors (n, D) and the identifiers of each."""
        rows = [
            NewImage(item.record.image_id, item.record.uri, item.sha256, names, vector, item.record.metadata)
            for item, names, vector in zip(new, packed, vectors, strict=True)
        ]
        left_out = self._catalog.add(rows).skipped
        kept = {row.uri for row in rows} - {one.path for one in left_out}
        updated = sum(item.replaces and item.record.uri in kept for item in new)
        self._added, self._updated = self._added + len(kept) - updated, self._updated + updated
        self._skipped += left_out
