"""The images given to a retriever that its catalog does not have yet, decoded, in batches of bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import NamedTuple, TypeVar

from PIL import Image

from genret.api import Record, Skipped
from genret.catalog.store import Catalog
from genret.errors import BadImage
from genret.kit.encode import LARGEST_SIDE, opened
from genret.kit.images import content_hash, decode_image
from genret.search.thumbnails import Thumbnails

IMAGES = 500
"""Number of images compared with the catalog at a time."""
BATCH = 32
"""Maximum number of images decoded and encoded at a time."""
BATCH_PIXELS = 60_000_000
"""Maximum number of their pixels, to bound memory for large images; a larger image is a batch of its own."""

Source = tuple[Record, Callable[[], bytes]]
"""An image without its bytes, and the function that reads them."""


class NewContent(NamedTuple):
    """An image that must be encoded."""

    record: Record
    sha256: str
    image: Image.Image
    replaces: bool
    """Whether the catalog has another image with this id"""


Made = TypeVar("Made")


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
        """The images that must be encoded."""
        source = iter(images)
        while chunk := list(islice(source, IMAGES)):
            known = self._catalog.contents_of([record.image_id for record, _ in chunk])
            for record, read in chunk:
                try:
                    data = read()
                    sha256, before = content_hash(data), known.get(record.image_id)
                    if before == sha256:
                        self.unchanged += 1
                        continue
                    image = opened(partial(decode_image, data, record.uri, side=LARGEST_SIDE))
                except (BadImage, OSError) as error:
                    self.skipped.append(Skipped(record.uri, str(error)))
                    continue
                self._thumbnails.save(sha256, image)
                yield NewContent(record, sha256, image, before is not None)


def batches(images: Iterable[NewContent]) -> Iterator[list[NewContent]]:
    """Batches within `BATCH` and `BATCH_PIXELS`, at least one image each."""
    batch, pixels = list[NewContent](), 0
    for item in images:
        size = item.image.width * item.image.height
        if batch and (len(batch) == BATCH or pixels + size > BATCH_PIXELS):
            yield batch
            batch, pixels = [], 0
        batch.append(item)
        pixels += size
    if batch:
        yield batch
