"""The run's thumbnails, embedded in the page with a few kilobytes each."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from genret.errors import BadImage
from genret.search.thumbnails import Thumbnails

SIDE = 144
"""Size in pixels: shown at half this size, sharp on a phone."""
MOST_BYTES = 10_000
"""Maximum bytes of one image."""
PAGE_BYTES = 1_900_000
"""Limit of all images of a page, before base64 (four bytes for three); beyond it, images get smaller, not fewer."""
LEAST_BYTES = 1_200
QUALITIES = (78, 60, 45, 30, 15)


class ThumbnailUris:
    """Data URIs by the content hash of the original. `expected`: the approximate number of images on the page."""

    def __init__(self, run: Path, expected: int):
        self._thumbnails = Thumbnails(run / "thumbnails")
        self._most = max(LEAST_BYTES, min(MOST_BYTES, PAGE_BYTES // max(1, expected)))
        self._made: dict[str, str | None] = {}

    def uri(self, sha256: str) -> str | None:
        """`data:image/webp;base64,…`, re-encoded from the pixels, so that a file's metadata are not copied. None
        without a thumbnail."""
        if sha256 not in self._made:
            try:
                picture = self._thumbnails.open(sha256)
            except BadImage:
                self._made[sha256] = None
            else:
                data = base64.b64encode(small(picture, self._most)).decode("ascii")
                self._made[sha256] = f"data:image/webp;base64,{data}"
        return self._made[sha256]


def small(picture: Image.Image, most: int) -> bytes:
    """WebP of at most `most` bytes: lower quality first, then fewer pixels."""
    side, data = SIDE, b""
    while side >= 16:
        copy = picture.convert("RGB")
        copy.thumbnail((side, side), Image.Resampling.LANCZOS)
        for quality in QUALITIES:
            out = io.BytesIO()
            copy.save(out, "WEBP", quality=quality, method=4)
            data = out.getvalue()
            if len(data) <= most:
                return data
        side = side * 2 // 3
    return data
