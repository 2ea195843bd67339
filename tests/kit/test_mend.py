"""Pictures of which only what stands beside the pixels is spoilt: taken, with a note; all others stay refused."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from genret.errors import BadImage
from genret.kit import images
from genret.kit.images import decode_image

NOISE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png_chunk(kind: bytes, body: bytes, crc: int = 0) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ crc)


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"zTXt", b"prompt\0\0" + zlib.compress(b"a cat, " * 450_000)),
        png_chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(b"{} " * 1_000_000)),
        png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(3_000_000))),
        png_chunk(b"tEXt", b"prompt\0a cat", crc=1),
    ],
    ids=["zTXt", "iTXt", "iCCP", "damaged"],
)
def test_long_or_damaged_texts_of_a_png_are_left_out(chunk, place, caplog):
    images._note.cache_clear()
    transparent = Image.fromarray(NOISE).convert("RGBA")
    transparent.putpixel((0, 0), (0, 0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 3
    data = encoded(transparent, exif=exif)
    end = data.index(b"IEND") - 4 if place == "after" else 33  # 33: after the header
    spoilt = data[:end] + chunk + data[end:]
    assert decode_image(spoilt, "x").tobytes() == decode_image(data, "x").tobytes()
    assert decode_image(spoilt, "x").getpixel((63, 63)) == (255, 255, 255)  # turned upright, on white
    assert [record.message for record in caplog.records] in (
        [],  # a profile that follows the pixels, or a spoilt checksum there, is nothing that Pillow minds
        ["x has texts that are damaged or too long; it is taken"],
    )
    if place == "before":
        assert caplog.records


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 5}, {"subsampling": 2, "optimize": True}])
def test_a_jpeg_without_its_end_mark_is_taken_if_no_pixel_is_missing(options, caplog):
    images._note.cache_clear()
    data = encoded(Image.fromarray(NOISE), "JPEG", **options)
    assert data.endswith(b"\xff\xd9")
    for missing in (1, 2):
        decoded = decode_image(data[:-missing], f"{missing}.jpg")
        assert decoded.tobytes() == decode_image(data, "x").tobytes()
    assert decode_image(data[:-2] + bytes(100), "padded.jpg").tobytes() == decode_image(data, "x").tobytes()
    for missing in (4, 8, 40, len(data) // 2):
        with pytest.raises(BadImage, match=r"^cut\.jpg is damaged"):
            decode_image(data[:-missing], "cut.jpg")
    assert all("lacks its last bytes, but none of its pixels" in record.message for record in caplog.records)
