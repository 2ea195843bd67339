"""Decoding hostile and unusual pictures, held against what was drawn."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from genret.errors import BadImage
from genret.kit import images
from genret.kit.images import content_hash, decode_image, read_bytes, thumbnail

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def halves(mode: str = "RGB") -> Image.Image:
    """Left half red, right half blue, 32 x 16."""
    image = Image.new("RGB", (32, 16), RED)
    image.paste(BLUE, (16, 0, 32, 16))
    return image.convert(mode)


def near(pixel, wanted, tolerance: int = 12) -> bool:
    return all(abs(int(a) - int(b)) <= tolerance for a, b in zip(pixel, wanted, strict=True))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "MPO", "JPEG2000"])
def test_every_format_gives_the_same_rgb_picture(kind):
    options = {"quality": 100} if kind in ("JPEG", "WEBP", "MPO") else {}
    image = decode_image(encoded(halves(), kind, **options), "x")
    assert image.mode == "RGB" and image.size == (32, 16)
    assert near(image.getpixel((3, 8)), RED) and near(image.getpixel((28, 8)), BLUE)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation):
    # how a camera stores an upright picture under each orientation: the inverse transform
    upright = halves()
    inverse = {
        **{1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180},
        **{4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90},
        **{7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270},
    }[orientation]
    stored = upright if inverse is None else upright.transpose(inverse)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode_image(encoded(stored, exif=exif), "x")
    assert image.tobytes() == upright.tobytes()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_leaves_the_picture_as_it_lies():
    data = encoded(halves(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\x01" * 40, quality=100)
    assert decode_image(data, "x").size == (32, 16)


def test_cmyk_becomes_rgb():
    image = decode_image(encoded(halves("CMYK"), "JPEG", quality=100), "x")
    assert image.mode == "RGB" and near(image.getpixel((3, 8)), RED)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_brightness(kind):
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    image = decode_image(encoded(Image.fromarray(values), kind), "x")
    np.testing.assert_allclose(np.asarray(image)[..., 0], values / 257, atol=0.51)


def test_16_bit_rgb_png_keeps_its_colour():
    row = b"\0" + struct.pack(">3H", 65535, 32768, 0) * 4
    chunks = [(b"IHDR", struct.pack(">2I5B", 4, 4, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(row * 4)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body)) for tag, body in chunks
    )
    assert near(decode_image(data, "x").getpixel((0, 0)), (255, 128, 0), 1)


def test_float_tiff_is_scaled():
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    values[0, 0] = np.nan
    image = np.asarray(decode_image(encoded(Image.fromarray(values), "TIFF"), "x"))[..., 0]
    assert image[0, 0] == 0 and image[7, 7] == 255
    np.testing.assert_allclose(image.ravel()[1:], values.ravel()[1:] * 255, atol=0.51)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(mode):
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (4, 0, 8, 8))
    decoded = decode_image(encoded(image.quantize(4) if mode == "P" else image.convert(mode)), "x")
    assert decoded.getpixel((1, 1)) == WHITE and near(decoded.getpixel((6, 6)), (0, 0, 0))


def test_half_transparent_is_mixed_with_white():
    assert near(decode_image(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 128))), "x").getpixel((0, 0)), (127,) * 3, 1)


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_of_a_moving_picture_the_first_frame(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert near(decode_image(data, "x").getpixel((4, 4)), RED, 8)


def bomb() -> bytes:
    """A valid PNG header of 60,000 x 60,000 pixels."""
    header = struct.pack(">2I5B", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", len(body)) + b"IDAT" + body + bytes(4)


NOISE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"hello, I am no picture\n", "text file"),
        (b"<?xml version='1.0'?><svg/>", "SVG"),
        (b"\0\0\0\x18ftypheic" + bytes(50), "HEIC"),
        (b"\xff\x0a" + bytes(50), "damaged" if "JXL" in images.extras() else "JPEG XL"),
        (os.urandom(2) + b"\xff\xfe\xfd" * 50, "none of PNG"),
        (encoded(Image.fromarray(NOISE), "JPEG")[:1500], "damaged"),
        (encoded(Image.fromarray(NOISE), "PNG")[:1500], "damaged"),
        (encoded(Image.fromarray(NOISE), "WEBP")[:700], "damaged"),
        (bomb(), "pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "text file"),
    ],
)
def test_bad_pictures_are_one_sentence_that_names_the_file(data, says):
    with pytest.raises(BadImage) as caught:
        decode_image(data, "holiday/a.png")
    message = str(caught.value)
    assert message.startswith("holiday/a.png ") and says in message and "\n" not in message


def test_the_pixel_limit_is_exact():
    data = encoded(Image.new("RGB", (10, 10)))
    assert decode_image(data, "x", max_pixels=100).size == (10, 10)
    with pytest.raises(BadImage, match="10 x 10 pixels, more than the 99"):
        decode_image(data, "x", max_pixels=99)


def test_heic_needs_a_package(monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    data = encoded(halves(), "HEIF", quality=100)
    assert near(decode_image(data, "x").getpixel((3, 8)), RED) and near(decode_image(data, "x").getpixel((28, 8)), BLUE)
    assert images.is_image_name("a.HEIC") and images.unreadable("a.heic") is None
    with pytest.raises(BadImage, match=r"^x is .*damaged"):
        decode_image(data[:200], "x")
    monkeypatch.setattr(images, "extras", frozenset)
    assert not images.is_image_name("a.heic") and "pip install 'genret[heif]'" in images.unreadable("a.heic")
    with pytest.raises(BadImage, match=r"HEIC picture; pip install 'genret\[heif\]', or convert to JPEG"):
        decode_image(data, "x")


SEEDS = [encoded(halves(), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")]


@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8), st.data())
def test_damaged_bytes_decode_or_are_bad_images(data, changes, draw):
    damaged = bytearray(data[: draw.draw(st.integers(0, len(data)))])
    for place, value in changes:
        if damaged:
            damaged[place % len(damaged)] = value
    try:
        assert decode_image(bytes(damaged), "x", max_pixels=10**6).mode == "RGB"
    except BadImage as error:
        assert str(error).startswith("x ")


def test_content_hash_is_sha256():
    assert content_hash(b"abc") == hashlib.sha256(b"abc").hexdigest()


def test_thumbnails_fit_and_repeat():
    image = halves().resize((640, 320))
    data = thumbnail(image, 160)
    assert data == thumbnail(image, 160) and image.size == (640, 320)
    with Image.open(io.BytesIO(data)) as small:
        assert small.format == "JPEG" and small.size == (160, 80)


def test_only_ordinary_files_of_sane_size_are_read(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(BadImage, match="no ordinary file"):
        read_bytes(tmp_path / "pipe.png")  # opening it would wait for ever
    with pytest.raises(BadImage, match="is a folder"):
        read_bytes(tmp_path)
    with pytest.raises(BadImage, match="cannot be read: No such file"):
        read_bytes(tmp_path / "none.png")
    (tmp_path / "big.png").write_bytes(bytes(100))
    with pytest.raises(BadImage, match="100 bytes, more than the 99"):
        read_bytes(tmp_path / "big.png", max_bytes=99)
    assert read_bytes(tmp_path / "big.png", max_bytes=100) == bytes(100)


def dng(width: int = 64, height: int = 48) -> bytes:
    """A camera's raw file as small as it can be, Adobe DNG 1.4: a mosaic whose left half is red and right half blue."""
    mosaic = np.full((height, width), 200, dtype="<u2")
    mosaic[0::2, 0 : width // 2 : 2] = 60_000
    mosaic[1::2, width // 2 + 1 :: 2] = 60_000

    def short(*values: int) -> tuple[int, int, bytes]:
        return 3, len(values), struct.pack(f"<{len(values)}H", *values)

    def long(value: int) -> tuple[int, int, bytes]:
        return 4, 1, struct.pack("<I", value)

    def text(value: bytes) -> tuple[int, int, bytes]:
        return 2, len(value) + 1, value + b"\0"

    tags = {
        254: long(0), 256: long(width), 257: long(height), 258: short(16), 259: short(1), 262: short(32803),
        271: text(b"Test"), 272: text(b"Camera"), 273: long(0), 274: short(1), 277: short(1), 278: long(height),
        279: long(mosaic.nbytes), 33421: short(2, 2), 33422: (1, 4, bytes((0, 1, 1, 2))),
        50706: (1, 4, bytes((1, 4, 0, 0))), 50707: (1, 4, bytes((1, 1, 0, 0))), 50708: text(b"Test Camera"),
        50714: short(0), 50717: short(65535),
        50721: (10, 9, struct.pack("<18i", *(part for one in (1, 0, 0, 0, 1, 0, 0, 0, 1) for part in (one, 1)))),
        50728: (5, 3, struct.pack("<6I", *(1, 1) * 3)), 50778: short(21),
    }  # fmt: skip
    behind = 8 + 2 + 12 * len(tags) + 4
    tags[273] = long(behind + sum(len(value) for _, _, value in tags.values() if len(value) > 4))
    entries, more = b"", b""
    for tag, (kind, count, value) in sorted(tags.items()):
        inside = len(value) <= 4
        entries += struct.pack("<HHI", tag, kind, count)
        entries += value.ljust(4, b"\0") if inside else struct.pack("<I", behind + len(more))
        more += b"" if inside else value
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head + more + mosaic.tobytes()


def test_raw_photographs_through_an_extra(monkeypatch):
    pytest.importorskip("rawpy")
    image = decode_image(dng(), "a.DNG")
    assert image.mode == "RGB" and image.size == (64, 48)
    assert near(image.getpixel((10, 24)), RED, 60) and near(image.getpixel((54, 24)), BLUE, 60)
    with pytest.raises(BadImage, match=r"^a\.cr2 is damaged"):
        decode_image(b"II*\0" + bytes(60), "a.cr2")
    monkeypatch.setattr(images, "extras", frozenset)
    assert "pip install 'genret[raw]', or convert to JPEG" in images.unreadable("a.dng")


def test_large_jpegs_are_decoded_at_a_reduced_size_if_that_suffices():
    large = halves().resize((1600, 800))
    data = encoded(large, "JPEG", quality=95)
    for side, size in ((0, (1600, 800)), (500, (1600, 800)), (400, (800, 400)), (110, (400, 200)), (1, (200, 100))):
        image = decode_image(data, "a.jpg", side=side)
        assert (
            image.size == size and near(image.getpixel((10, 50)), RED) and near(image.getpixel((size[0] - 9, 50)), BLUE)
        )
    assert decode_image(encoded(large, "PNG"), "a.png", side=10).size == (1600, 800), "other formats cannot"


def test_jpeg_xl_through_an_extra(monkeypatch):
    pytest.importorskip("pillow_jxl")
    image = decode_image(encoded(halves(), "JXL", lossless=True), "a.jxl")
    assert image.size == (32, 16) and near(image.getpixel((4, 8)), RED) and near(image.getpixel((28, 8)), BLUE)
    assert images.unreadable("a.jxl") is None and images.is_image_name("a.jxl")
    monkeypatch.setattr(images, "extras", frozenset)
    with pytest.raises(BadImage, match=r"JPEG XL picture; pip install 'genret\[jxl\]', or convert to PNG"):
        decode_image(encoded(halves(), "JXL"), "a.jxl")
