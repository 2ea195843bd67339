"""The images given to a retriever that its catalog does not have yet, decoded, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from typing import NamedTuple

from PIL import Image

from genret.api import Record, Skipped
from genret.catalog.store import Catalog
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
    with ThreadPoolExecutor(1, thread_name_prefix="genret-decode") as pool:
        following = pool.submit(next, source, None)
        while (item := following.result()) is not None:
            following = pool.submit(next, source, None)
            yield item


class Sync:
    """Compares images with a catalog by content, counts those that it has, and stores thumbnails of the others."""

    def __init__(self, catalog: Catalog, thumbnails: Thumbnails):
        self.skipped: list[Skipped] = []
        self.unchanged = 0
        self._catalog, self._thumbnails = catalog, thumbnails

    def new(self, images: Iterable[Source]) -> Iterator[NewContent]:
        """The images that must be encoded, decoded by several threads."""
        with closing(in_threads(self._calls(iter(images)), 2 * BATCH)) as looked_at:
            for found in looked_at:
                if isinstance(found, NewContent):
                    yield found
                elif found is None:
                    self.unchanged += 1
                else:
                    self.skipped.append(found)

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
