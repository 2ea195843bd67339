"""Pictures that clients send: checked by decoding, stored below the run under a name of their content."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from genret.api import IndexReport, Silent, Skipped
from genret.errors import BadImage
from genret.kit.files import write_bytes
from genret.kit.images import content_hash, decode_image
from genret.run import Run

FOLDER = "uploads"
SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "GIF": ".gif", "AVIF": ".avif", "BMP": ".bmp"}
"""By Pillow's format; other pictures are stored as PNG."""
_UNSAFE = re.compile(r"[^\w.() -]+")


def store(run: Run, name: str, stream: BinaryIO, max_bytes: int) -> Path:
    """Writes a picture to `<run>/uploads/ab/abcd.../NAME.suffix`; `BadImage` if it is none. The suffix is that of its
    content, whatever the client called it."""
    shown = safe_name(name)
    data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise BadImage(f"{shown} has more than the {max_bytes:,} bytes allowed")
    picture = decode_image(data, shown)
    try:
        with Image.open(io.BytesIO(data)) as opened:
            suffix = SUFFIXES.get(opened.format or "")
    except Exception:  # only readable after repair
        suffix = None
    if suffix is None:
        out = io.BytesIO()
        picture.save(out, "PNG")
        data, suffix = out.getvalue(), ".png"
    sha256 = content_hash(data)
    folder = run.folder / FOLDER / sha256[:2] / sha256[:32]
    there = sorted(folder.glob("*")) if folder.is_dir() else []
    if there:
        return there[0]  # the same picture under another name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{Path(shown).stem[:80] or 'picture'}{suffix}"
    write_bytes(path, data)
    return path


def safe_name(name: str) -> str:
    """The last part of a client's file name, in letters that no file system or page minds."""
    last = unicodedata.normalize("NFKC", name).replace("\\", "/").rsplit("/", 1)[-1]
    return _UNSAFE.sub("_", last).strip(". ")[:100] or "picture"


class Told(Silent):
    """Progress as events."""

    def __init__(self, tell: Callable[[dict[str, Any]], None]):
        self._tell, self._stage, self._done, self._total = tell, "", 0, 0

    def progress(self, label: str, total: int | None = None) -> Told:
        self._stage, self._done, self._total = label, 0, total or 0
        return self

    def advance(self, n: int = 1) -> None:
        self._done += n
        self._tell({"event": "progress", "stage": self._stage, "done": self._done, "total": self._total})


def add_files(
    run: Run, files: list[tuple[str, BinaryIO]], max_bytes: int, tell: Callable[[dict[str, Any]], None]
) -> IndexReport:
    """Stores and indexes uploaded pictures; those that are none are skipped."""
    stored, skipped = list[Path](), list[Skipped]()
    for name, stream in files:
        try:
            stored.append(store(run, name, stream, max_bytes))
        except BadImage as error:
            skipped.append(Skipped(safe_name(name), str(error)))
    report = run.index(stored, Told(tell)) if stored else IndexReport(0, 0, [])
    return report._replace(skipped=[*skipped, *report.skipped])
