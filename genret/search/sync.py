"""The images given to a retriever that its catalog does not have yet, decoded, in batches of bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from PIL import Image

from genret.api import Record, Skipped
from genret.catalog.store import Catalog
from genret.errors import BadImage
from genret.kit.images import content_hash, decode_image

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


class Sync:
    """Compares images with a catalog by content, and counts those that need no encoding."""

    def __init__(self, catalog: Catalog):
        self.skipped: list[Skipped] = []
        self.unchanged = 0
        self._catalog = catalog

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
                    else:
                        yield NewContent(record, sha256, decode_image(data, record.uri), before is not None)
                except (BadImage, OSError) as error:
                    self.skipped.append(Skipped(record.uri, str(error)))


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
