"""Small copies of images on disk."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from genret.search.thumbnails import Thumbnails


def test_new_ones_are_jpegs_and_those_of_an_older_genret_stay(tmp_path: Path) -> None:
    thumbnails, older, newer = Thumbnails(tmp_path), "ab" * 32, "cd" * 32
    (tmp_path / "ab").mkdir()
    Image.new("RGB", (30, 20), "red").save(tmp_path / "ab" / f"{older}.webp")
    assert thumbnails.has(older) and not thumbnails.has(newer)
    for name in (older, newer):
        thumbnails.save(name, Image.new("RGB", (600, 300), "blue"))
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == [f"{older}.webp", f"{newer}.jpg"]
    assert thumbnails.open(older).size == (30, 20) and thumbnails.open(newer).size == (256, 128)
