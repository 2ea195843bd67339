"""Paths out of files, the files they mean, and the part of the training images that is held out."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genret.api import Record
from genret.components.data.paths import below, check_present
from genret.errors import GenretError
from genret.toolbox.splits import carve


def test_paths_stay_below_their_folder(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert below("a/b.png", "x") == "a/b.png" == below("a\\b.png", "x", tmp_path)
    for start in ("real", "link"):
        assert below(str(tmp_path / start / "a" / "b.png"), "x", tmp_path / start) == "a/b.png"
    assert below(str(tmp_path / "real" / "b.png"), "x", tmp_path / "link") == "b.png"
    for wrong in (str(tmp_path / "b.png"), "/etc/passwd", "../b.png", str(tmp_path / "real/../b.png"), "", "a\0", "."):
        with pytest.raises(GenretError, match=r"^table names the image .*no path below"):
            below(wrong, "table", tmp_path / "real")
    with pytest.raises(GenretError, match="no path below"):
        below(str(tmp_path / "real" / "b.png"), "table")


def test_spellings(tmp_path: Path):
    for name in ("A.PNG", "b/C.png", "same.png", "SAME.png", "stra\u00dfe.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert check_present(tmp_path, ["A.PNG", "b/C.png"], Path("t")) == {}
    asked = {"a.png": "A.PNG", "B/c.PNG": "b/C.png", "STRASSE.png": "stra\u00dfe.png"}
    assert check_present(tmp_path, [*asked, "same.png", "SAME.png"], Path("t")) == asked
    for missing in ("Same.png", "b", "b/d.png", "c/C.png", "A.PNG/x"):
        if missing == "b":
            continue  # a folder is no file, and where it is read it says so
        with pytest.raises(GenretError, match="t names 1 of 2 images that do not exist"):
            check_present(tmp_path, ["A.PNG", missing], Path("t"))


@given(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=30, unique=True), st.integers(0, 3))
def test_carving_parts_the_images_by_their_hashes(names, seed):
    records = [Record(name, name) for name in names]
    digests = [hashlib.sha256(f"{seed}:{name}".encode()).digest()[:7] for name in names]
    wanted = [name for name, digest in zip(names, digests, strict=True) if int.from_bytes(digest, "big") < 0.5 * 2**56]
    for dev, part in ((True, wanted), (False, [name for name in names if name not in wanted])):
        if part:
            assert [record.image_id for record in carve(records, "s", dev, 0.5, seed, "here")] == part
        else:
            with pytest.raises(GenretError, match=rf"'s' of here has no images: of {len(names)} .*dev_fraction"):
                list(carve(records, "s", dev, 0.5, seed, "here"))
    assert list(carve([], "s", True, 0.5, seed, "here")) == []
