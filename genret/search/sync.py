"""What a catalog must do to follow files: add, replace, rename, or nothing. Changes are detected by content; only new
images are decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
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
    """Compares images with a catalog, and counts those that need no encoding."""

    def __init__(self, catalog: Catalog):
        self.skipped: list[Skipped] = []
        self.moved = 0
        self.unchanged = 0
        self._catalog = catalog
        self._by_content: dict[str, list[str]] | None = None

    def new(self, images: Iterable[Source]) -> Iterator[NewContent]:
        """The images that must be encoded; files that moved are renamed on the way."""
        source = iter(images)
        while chunk := list(islice(source, IMAGES)):
            known = self._catalog.contents_of([record.image_id for record, _ in chunk])
            for record, read in chunk:
                try:
                    data = read()
                    sha256, before = content_hash(data), known.get(record.image_id)
                    if before == sha256:
                        self.unchanged += 1
                    elif before is None and (old := self._gone(sha256)) is not None:
                        self._catalog.rename({old: record})
                        self.moved += 1
                    else:
                        yield NewContent(record, sha256, decode_image(data, record.uri), before is not None)
                except (BadImage, OSError) as error:
                    self.skipped.append(Skipped(record.uri, str(error)))

    def _gone(self, sha256: str) -> str | None:
        """The id of an added image with this content whose file no longer exists."""
        if self._by_content is None:
            self._by_content = {}
            for image_id, content in self._catalog.added_images().items():
                self._by_content.setdefault(content, []).append(image_id)
        there = self._by_content.get(sha256, [])
        gone = next((one for one in there if Path(one).is_absolute() and not Path(one).exists()), None)
        if gone is not None:
            there.remove(gone)
        return gone


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
