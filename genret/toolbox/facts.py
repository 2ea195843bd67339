"""What a file says of itself: its place, its size, when and where it was taken, with what camera, its tags.

EXIF, XMP and IPTC are read from the head of the file; no pixels are decoded. Damaged or missing facts are left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image, IptcImagePlugin
from PIL.ExifTags import GPS, IFD, Base

from genret.api import Record
from genret.errors import BadImage
from genret.kit.images import formats
from genret.kit.text import clean
from genret.toolbox.walk import printable

LONGEST = 300
"""Letters of a text that are kept."""
_TITLE, _KEYWORDS, _PLACE = (2, 5), (2, 25), ((2, 92), (2, 90), (2, 95), (2, 101))
"""IPTC-IIM: object name; keywords; sublocation, city, province, country."""
_TURNED = range(5, 9)
"""EXIF orientations that lie on their side."""


def record_of(path: Path) -> Record:
    """An image file as `genret index` stores it. Its absolute path is its id.

    Metadata: `file`, `folder` (the innermost one's name), `type` (the suffix), `modified` (UTC date); as far as the
    file says it, `width`, `height`, `taken` (local date and time), `camera`, `latitude`, `longitude`, `place`, `title`,
    `tags`.
    """
    path = path.absolute()
    shown = printable(path)
    metadata: dict[str, Any] = {
        "file": Path(shown).name,
        "folder": Path(shown).parent.name,
        "type": path.suffix.lstrip(".").lower(),
    }
    try:
        metadata["modified"] = datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
    except OSError as error:
        raise BadImage(f"{shown} cannot be read: {error.strerror or error}") from error
    return Record(image_id=shown, uri=shown, metadata=metadata | facts_in(path))


def facts_in(path: Path) -> dict[str, Any]:
    """Of a regular file that is a picture; nothing of others."""
    found: dict[str, Any] = {}
    if not path.is_file():  # opening a pipe might never end
        return found
    with suppress(Exception), Image.open(path, formats=formats()) as image:
        found |= {"width": image.width, "height": image.height}
        exif: dict[int, Any] = {}
        with suppress(Exception):
            exif = dict(image.getexif())
        if exif.get(Base.Orientation) in _TURNED:
            found |= {"width": image.height, "height": image.width}
        for part in (_of_exif, _of_gps, _of_texts):
            with suppress(Exception):  # Pillow raises many kinds of exceptions on damaged metadata
                found |= {key: value for key, value in part(image, exif) if value not in ("", None)}
    return found


def _of_exif(image: Image.Image, exif: dict[int, Any]) -> Iterator[tuple[str, Any]]:
    inner = image.getexif().get_ifd(IFD.Exif)
    dates = (inner.get(Base.DateTimeOriginal), inner.get(Base.DateTimeDigitized), exif.get(Base.DateTime))
    yield "taken", next(filter(None, map(_date, dates)), None)
    make, model = _text(exif.get(Base.Make)), _text(exif.get(Base.Model))
    yield "camera", model if model.casefold().startswith(make.casefold()) else f"{make} {model}".strip()


def _of_gps(image: Image.Image, exif: dict[int, Any]) -> Iterator[tuple[str, Any]]:
    gps = image.getexif().get_ifd(IFD.GPSInfo)
    latitude = _degrees(gps[GPS.GPSLatitude], gps.get(GPS.GPSLatitudeRef), "S", 90)
    longitude = _degrees(gps[GPS.GPSLongitude], gps.get(GPS.GPSLongitudeRef), "W", 180)
    if latitude is not None and longitude is not None:
        yield from (("latitude", latitude), ("longitude", longitude))


def _of_texts(image: Image.Image, exif: dict[int, Any]) -> Iterator[tuple[str, Any]]:
    iptc: dict[Any, Any] = {}
    with suppress(Exception):
        iptc = IptcImagePlugin.getiptcinfo(image) or {}  # type: ignore[arg-type]
    xmp = list(_elements(image.getxmp() if hasattr(image, "getxmp") else {}))
    titles = [*_named(xmp, "title"), *_listed(iptc.get(_TITLE))]
    yield "title", next(filter(None, map(_text, titles)), "")
    tags = filter(None, map(_text, (*_named(xmp, "subject"), *_listed(iptc.get(_KEYWORDS)))))
    yield "tags", ", ".join(dict.fromkeys(tags))[:LONGEST]
    parts = [*(part for key in _PLACE for part in _listed(iptc.get(key)))]
    parts = parts or [part for name in ("Location", "City", "State", "Country") for part in _named(xmp, name)]
    yield "place", ", ".join(dict.fromkeys(filter(None, map(_text, parts))))[:LONGEST]


def _elements(node: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Names and values anywhere in an XMP packet."""
    if isinstance(node, dict) and depth < 20:
        for name, value in node.items():
            yield str(name), value
            yield from _elements(value, depth + 1)
    elif isinstance(node, list) and depth < 20:
        for one in node:
            yield from _elements(one, depth + 1)


def _named(xmp: Iterable[tuple[str, Any]], name: str) -> Iterator[Any]:
    for key, value in xmp:
        if key == name:
            yield from _leaves(value)


def _leaves(node: Any) -> Iterator[Any]:
    """The texts of an XMP value: plain, or a list of alternatives or items."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name not in ("lang", "xml:lang"):
                yield from _leaves(value)
    elif isinstance(node, list):
        for one in node:
            yield from _leaves(one)
    else:
        yield node


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _text(value: Any) -> str:
    """On one line, without padding; bytes as UTF-8 or Latin-1."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            value = value.decode("latin-1")
    return clean(str(value or "").split("\0", 1)[0]).strip()[:LONGEST]


def _date(value: Any) -> str | None:
    """`2023:05:01 12:30:00` → `2023-05-01 12:30:00`; None for what is no date."""
    found = re.match(r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d)(?::(\d\d))?", _text(value))
    if not found:
        return None
    with suppress(ValueError):
        return datetime(*(int(part or 0) for part in found.groups())).isoformat(" ")  # type: ignore[arg-type]
    return None


def _degrees(parts: Any, side: Any, negative: str, most: int) -> float | None:
    degrees, minutes, seconds = (float(part) for part in parts)
    value = round(degrees + minutes / 60 + seconds / 3600, 6)
    if not (math.isfinite(value) and 0 <= value <= most):
        return None
    return -value if _text(side).upper() == negative else value
