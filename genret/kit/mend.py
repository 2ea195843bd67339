"""Repairs images that decoders reject although all pixels are there: damaged parts beside these are removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from PIL import Image

from genret.errors import BadImage

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
"""Neither text nor color profile changes the decoded pixels. Pillow rejects long ones."""
_PADDINGS = (b"", b"\x55" * 32, b"\xaa" * 32)


class Mended(NamedTuple):
    image: Image.Image
    note: str
    """What was wrong, for people"""


def mended(data: bytes, decode: Callable[[bytes], Image.Image]) -> Mended | None:
    """The repaired image if no pixel is missing, else None. `decode` raises `BadImage`."""
    try:
        if data.startswith(_PNG):
            rest = _without_texts(data)
            return Mended(decode(rest), "has texts that are damaged or too long") if len(rest) < len(data) else None
        if data.startswith(_JPEG) and not data.endswith(_JPEG_END):
            image = _ended(data, decode)
            return None if image is None else Mended(image, "lacks its last bytes, but none of its pixels")
    except BadImage:
        pass
    return None


def _without_texts(data: bytes) -> bytes:
    kept, place, view = [data[: len(_PNG)]], len(_PNG), memoryview(data)
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")  # length, kind, content, checksum
        if data[place + 4 : place + 8] not in _TEXT_CHUNKS:
            kept.append(bytes(view[place:end]))
        place = end
    return b"".join([*kept, view[place:]])


def _ended(data: bytes, decode: Callable[[bytes], Image.Image]) -> Image.Image | None:
    """The image, if no pixel depends on the bytes that are missing before the end marker."""
    body = data.removesuffix(_JPEG_END[:1])
    first = decode(body + _PADDINGS[0] + _JPEG_END)
    pixels = first.tobytes()
    same = all(decode(body + padding + _JPEG_END).tobytes() == pixels for padding in _PADDINGS[1:])
    return first if same else None
