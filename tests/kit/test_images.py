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

from genret.errors import BadImage, GenretError
from genret.kit import images
from genret.kit.images import content_hash, decode_image, read_bytes, record_of, thumbnail, walk_images

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
        (b"\xff\x0a" + bytes(50), "JPEG XL"),
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
    monkeypatch.setattr(images, "_formats", lambda: images.FORMATS)
    assert not images.is_image_name("a.heic") and "pip install 'genret[heif]'" in images.unreadable("a.heic")
    with pytest.raises(BadImage, match=r"HEIC photograph; pip install 'genret\[heif\]', or convert to JPEG"):
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
        assert small.format == "WEBP" and small.size == (160, 80)


def test_walk_finds_images_once_in_order(tmp_path: Path):
    for name in ("b.PNG", "a.jpg", "sub/c.webp", "sub/notes.txt", ".hidden.png", ".cache/d.png", "._b.png", "z.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = [path.relative_to(tmp_path).as_posix() for path in walk_images([tmp_path])]
    assert found == ["a.jpg", "b.PNG", "z.heic", "sub/c.webp"]
    assert next(walk_images([tmp_path / "a.jpg", str(tmp_path)])) == tmp_path / "a.jpg"
    assert len(list(walk_images([tmp_path / "a.jpg", tmp_path]))) == 4
    assert list(walk_images([tmp_path / "sub" / "notes.txt"])) == [tmp_path / "sub" / "notes.txt"]
    with pytest.raises(GenretError, match=r"no file or folder .*nowhere"):
        list(walk_images([tmp_path / "nowhere"]))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000"])
def test_files_without_a_suffix_are_found_by_their_beginning(tmp_path: Path, kind):
    (tmp_path / "1000092795").write_bytes(encoded(halves(), kind))
    for name, content in (
        ("README", b"BM is not MM"),
        ("Makefile", b"P1: all\n"),
        ("empty", b""),
        ("x.dat", b"\xff\xd8\xff"),
    ):
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe")
    assert list(walk_images([tmp_path])) == [tmp_path / "1000092795"]


def test_pictures_of_all_suffixes_are_found(tmp_path: Path):
    suffixes = ["jpe", "mpo", "pbm", "pnm", "jp2", "jxl", "svg", "cr2", "dng", "heic", "dib"]
    for suffix in suffixes:
        (tmp_path / f"a.{suffix}").write_bytes(b"x")
    assert {path.suffix[1:] for path in walk_images([tmp_path])} == set(suffixes)
    readable = {"jpe", "mpo", "pbm", "pnm", "jp2", "dib"}
    assert readable <= {suffix for suffix in suffixes if images.is_image_name(f"a.{suffix}")}
    for suffix in ("jxl", "svg", "cr2", "dng"):
        assert images.unreadable(f"a.{suffix}")
        with pytest.raises(BadImage, match=rf"^a\.{suffix} .* convert to "):
            decode_image(b"\0\1\2\xff" * 9, f"a.{suffix}")


def test_linked_folders_are_entered_each_real_one_once(tmp_path: Path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside / "real", outside / "deep", tmp_path / "beside"):
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(b"x")
    for link, target in (
        ("a-link-to-real", inside / "real"),
        ("linked", outside),
        ("linked-again", outside),
        ("deeper", outside / "deep"),
        ("up", tmp_path),
        ("self", inside),
        ("broken", tmp_path / "nowhere"),
        (".hidden", tmp_path / "beside"),
    ):
        (inside / link).symlink_to(target)
    (outside / "back").symlink_to(inside)
    (outside / "deep" / "loop").symlink_to(outside)
    found = [path.relative_to(inside).as_posix() for path in walk_images([inside])]
    assert found == ["real/a.png", "deeper/a.png"]  # outside/deep came by its own link, and comes once
    assert list(walk_images([inside / "linked"])) == [
        inside / "linked" / "deep" / "a.png",
        inside / "linked/back/real/a.png",
    ]


def test_a_folder_that_may_not_be_listed_is_reported_by_reading_it(tmp_path: Path, monkeypatch):
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.png").write_bytes(b"x")
    scandir = os.scandir

    def refusing(path="."):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert list(walk_images([tmp_path])) == [tmp_path / "a.png", tmp_path / "locked"]
    with pytest.raises(BadImage, match="locked cannot be read: Permission denied"):
        read_bytes(tmp_path / "locked")


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


def test_records_of_files(tmp_path: Path):
    path = tmp_path / "Holiday" / "a b.JPG"
    path.parent.mkdir()
    path.write_bytes(b"x")
    os.utime(path, (86400 * 365, 86400 * 365))
    record = record_of(path)
    assert record.image_id == record.uri == str(path)
    assert record.metadata == {"file": "a b.JPG", "folder": "Holiday", "type": "jpg", "modified": "1971-01-01"}
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    odd.write_bytes(b"x")
    assert record_of(odd).image_id.encode() and record_of(odd).metadata["file"] == "\\xff.png"
