"""Which image files a walk finds."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from PIL import Image

from genret.errors import BadImage, GenretError
from genret.kit import images
from genret.kit.images import decode_image, read_bytes
from genret.toolbox.walk import walk_images


def encoded(kind: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (32, 16), "red").save(out, kind)
    return out.getvalue()


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
    (tmp_path / "1000092795").write_bytes(encoded(kind))
    for name, content in (
        ("README", b"BM is not MM"),
        ("Makefile", b"P1: all\n"),
        ("empty", b""),
        ("x.dat", b"\xff\xd8\xff"),
    ):
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe")
    assert list(walk_images([tmp_path])) == [tmp_path / "1000092795"]


def test_pictures_of_all_suffixes_are_found(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(images, "extras", frozenset)
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
