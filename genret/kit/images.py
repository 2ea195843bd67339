"""Images from untrusted bytes, files and folders. Independent of datasets and models.

Problems are raised as `BadImage` with one sentence; long runs skip and report these.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import stat
import warnings
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from genret.errors import BadImage
from genret.kit.mend import mended

log = logging.getLogger(__name__)

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "JPEG2000")
"""Formats that Pillow may decode. Not all that it supports: some decoders start other programs (EPS)."""

IMAGE_SUFFIXES = frozenset(
    (
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
        *(".avif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx"),
    )
)
RAW_SUFFIXES = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2")
_EXTRAS = {
    "HEIF": "pip install 'genret[heif]', or convert to JPEG",
    "JXL": "pip install 'genret[jxl]', or convert to PNG",
    "RAW": "pip install 'genret[raw]', or convert to JPEG",
}
CONVERT = {
    **dict.fromkeys((".heic", ".heif", ".hif"), _EXTRAS["HEIF"]),
    ".jxl": _EXTRAS["JXL"],
    **dict.fromkeys((".svg", ".svgz"), "convert to PNG, for instance with rsvg-convert of librsvg2-bin"),
    **dict.fromkeys((".psd", ".xcf", ".eps"), "convert to PNG, for instance with ImageMagick"),
    **dict.fromkeys(RAW_SUFFIXES, _EXTRAS["RAW"]),
}
"""Image formats that are found but not decoded without an extra, with what to install: reported, not ignored."""

MAX_PIXELS = 89_478_485
"""Pillow's own limit, a quarter of a gigabyte as RGB."""
MAX_BYTES = 256 * 2**20

# Our own limit replaces Pillow's warning, and warnings about damaged metadata are not shown. Set once: the filters of
# `warnings.catch_warnings` would leak between threads that decode.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")

_ORIENTATION = 0x0112  # EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS, side: int = 0) -> Image.Image:
    """The image as RGB, upright (EXIF), on white where it is transparent, the first frame of an animation.

    16-bit and float images are scaled to 8 bits. `name` appears in the `BadImage` message. `side`: a JPEG of twice this
    width and height or more is decoded at a half, quarter or eighth of its size that is not below it, far faster.
    """
    if not data:
        raise BadImage(f"{name} is empty (0 bytes)")
    try:
        return _decode(data, name, max_pixels, side)
    except BadImage:
        if (found := mended(data, lambda rest: _decode(rest, name, max_pixels, side))) is None:
            raise
        _note(name, found.note)
        return found.image


def _decode(data: bytes, name: str, max_pixels: int, side: int) -> Image.Image:
    try:
        if is_raw(name) and "RAW" in extras():
            data = _raw(data)
        with Image.open(io.BytesIO(data), formats=formats()) as image:
            if image.width * image.height > max_pixels:
                raise BadImage(
                    f"{name} has {image.width} x {image.height} pixels, more than the {max_pixels:,} allowed; "
                    "make it smaller or leave it out"
                )
            if side:
                image.draft(None, (side, side))
            return as_rgb(image)
    except BadImage:
        raise
    except UnidentifiedImageError as error:
        raise BadImage(f"{name} is no picture that can be read: {_guess(data, name)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(f"{name} has far more pixels than the {max_pixels:,} allowed; leave it out") from error
    except Exception as error:  # on damaged data Pillow raises many kinds of exceptions
        reason = str(error).strip().partition("\n")[0].strip().rstrip(".") or type(error).__name__
        raise BadImage(f"{name} is damaged and cannot be decoded: {reason}") from error


def as_rgb(image: Image.Image) -> Image.Image:
    """An opened picture as RGB, upright, on white where it is transparent."""
    image.load()
    return _upright(_to_rgb(image), image)


@lru_cache(maxsize=4096)  # an image is decoded several times in a run
def _note(name: str, what: str) -> None:
    log.warning("%s %s; it is taken", name, what)


@cache
def extras() -> frozenset[str]:
    """Those of `HEIF`, `JXL` and `RAW` whose readers are installed."""
    found = set()
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
        found.add("HEIF")
    with suppress(ImportError):
        import pillow_jxl  # noqa: F401 (registers itself)

        found.add("JXL")
    with suppress(ImportError):
        import rawpy  # noqa: F401

        found.add("RAW")
    return frozenset(found)


def formats() -> tuple[str, ...]:
    """What Pillow may decode: `FORMATS` and those of installed extras."""
    return (*FORMATS, *sorted(extras() - {"RAW"}))


def _raw(data: bytes) -> bytes:
    """A camera's raw file → the picture that the camera stored in it, else a developed one, as an encoded image."""
    import rawpy

    with rawpy.imread(io.BytesIO(data)) as raw:
        with suppress(rawpy.LibRawError):
            if (preview := raw.extract_thumb()).format is rawpy.ThumbFormat.JPEG:
                return bytes(preview.data)
        out = io.BytesIO()
        Image.fromarray(raw.postprocess(use_camera_wb=True)).save(out, "PNG", compress_level=1)
        return out.getvalue()


def content_hash(data: bytes) -> str:
    """SHA-256 in hexadecimal: equal for equal files, independent of their names."""
    return hashlib.sha256(data).hexdigest()


def thumbnail(image: Image.Image, size: int = 256) -> bytes:
    """The RGB image as JPEG, at most `size` pixels wide and high; WebP is smaller and takes ten times as long."""
    out = io.BytesIO()
    at_most(image, size, Image.Resampling.LANCZOS).save(out, "JPEG", quality=80, subsampling=0)
    return out.getvalue()


def at_most(image: Image.Image, size: int, filter: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
    """The image, scaled down if it is wider or higher than `size` pixels."""
    if max(image.size) > size:
        image = image.copy()
        image.thumbnail((size, size), filter, reducing_gap=1.0)
    return image


def read_bytes(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of an image file; `BadImage` for a folder, a pipe, a too large or an unreadable file."""
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            next(os.scandir(path), None)
            raise BadImage(f"{path} is a folder, not a picture")
        if not stat.S_ISREG(info.st_mode):  # reading a pipe or a device might never end
            raise BadImage(f"{path} is no ordinary file")
        if info.st_size > max_bytes:
            raise BadImage(f"{path} has {info.st_size:,} bytes, more than the {max_bytes:,} allowed")
        return path.read_bytes()
    except OSError as error:
        raise BadImage(f"{path} cannot be read: {error.strerror or error}") from error


def is_raw(name: str) -> bool:
    """Whether it is a camera's raw file, by its name or suffix; often the same picture lies beside it as a JPEG."""
    return suffix_of("x" + name) in RAW_SUFFIXES


def is_image_name(name: str) -> bool:
    return suffix_of(name) in IMAGE_SUFFIXES or (unreadable(name) is None and suffix_of(name) in CONVERT)


def unreadable(name: str) -> str | None:
    """How to convert an image that cannot be read, by its name or suffix; None for all other files."""
    suffix = suffix_of("x" + name)
    advice = CONVERT.get(suffix)
    return None if any(advice == _EXTRAS[extra] for extra in extras()) else advice


def suffix_of(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 (names, not paths)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode that Pillow decodes → RGB."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        white = Image.new("RGBA", layers.size, "white")
        return Image.alpha_composite(white, layers).convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """(H, W) 16-bit, 32-bit or float → (H, W) uint8, black stays black.

    The range is 1, 255, 65535 or, for larger values, the maximum, because files do not state it.
    """
    scaled = np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0).clip(min=0)
    peak = scaled.max(initial=0)
    if values.dtype.itemsize == 2:
        full = 65535.0
    else:
        full = next((full for full in (1.0, 255.0, 65535.0) if peak <= full), float(peak))
    return (scaled * (255 / full) + 0.5).astype(np.uint8)


def _upright(rgb: Image.Image, source: Image.Image) -> Image.Image:
    try:
        orientation = source.getexif().get(_ORIENTATION)
    except Exception:  # the EXIF block is damaged: leave the image as stored
        return rgb
    return rgb.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else rgb


def _guess(data: bytes, name: str) -> str:
    """What the bytes seem to be instead, or what the name says."""
    if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc"):
        return "it is a damaged HEIC picture" if "HEIF" in extras() else f"it is a HEIC picture; {CONVERT['.heic']}"
    if data[:2] == b"\xff\x0a" or data[4:8] == b"JXL ":
        return f"it is a JPEG XL picture; {CONVERT['.jxl']}"
    if data[:1024].lstrip()[:5].lower() in (b"<?xml", b"<svg ", b"<svg>"):
        return f"it is an SVG or XML file; {CONVERT['.svg']}"
    if advice := unreadable(name):
        return f"files ending in {suffix_of(name)} cannot; {advice}"
    try:
        data[:1024].decode()
    except UnicodeDecodeError:
        return f"it is none of {', '.join(FORMATS)}"
    return "it is a text file"
