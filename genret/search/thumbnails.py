"""Small copies of the searched images in the run directory, so that it can be viewed on any machine."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from genret.kit.files import write_bytes
from genret.kit.images import decode_image, read_bytes, thumbnail


class Thumbnails:
    """JPEG files named by the hash of the original: `<folder>/ab/abcd….jpg`; `.webp` from an older genret."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, sha256: str) -> Path:
        older = self.folder / sha256[:2] / f"{sha256}.webp"
        return older if older.exists() else older.with_suffix(".jpg")

    def has(self, sha256: str) -> bool:
        return self.path(sha256).exists()

    def save(self, sha256: str, picture: Image.Image) -> None:
        path = self.path(sha256)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, thumbnail(picture))  # two processes may add the same image at once

    def open(self, sha256: str) -> Image.Image:
        """The thumbnail; `BadImage` if there is none."""
        path = self.path(sha256)
        return decode_image(read_bytes(path), str(path))
