"""The run's thumbnails as pictures inside the page, each of a few kilobytes."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from genret.errors import BadImage
from genret.search.thumbnails import Thumbnails

SIDE = 144
"""Pixels: sharp on a phone at half of it."""
MOST_BYTES = 10_000
"""Of one picture."""
PAGE_BYTES = 1_900_000
"""Of all pictures of a page, before base64 makes four bytes of three; beyond it pictures become smaller, not fewer."""
LEAST_BYTES = 1_200
QUALITIES = (78, 60, 45, 30, 15)


class ThumbnailUris:
    """Data URIs by the content hash of the original. `expected`: how many pictures the page will show, about."""

    def __init__(self, run: Path, expected: int):
        self._thumbnails = Thumbnails(run / "thumbnails")
        self._most = max(LEAST_BYTES, min(MOST_BYTES, PAGE_BYTES // max(1, expected)))
        self._made: dict[str, str | None] = {}

    def uri(self, sha256: str) -> str | None:
        """`data:image/webp;base64,…`, made anew from the pixels: what is in a file goes no further than its picture.
        None where there is no thumbnail."""
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
