"""Hits in notebooks."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path

import pytest
from PIL import Image

from genret.api import Hit, SearchResult


@pytest.mark.parametrize(("suffix", "kind"), [("jpg", "jpeg"), ("webp", "webp")])
def test_a_grid_of_pictures_and_nothing_that_a_name_could_smuggle_in(tmp_path: Path, suffix: str, kind: str) -> None:
    file = tmp_path / f"small.{suffix}"
    Image.new("RGB", (20, 10), "red").save(file)
    hits = [
        Hit(1, "/p/a & b<script>.png", "/p/a.png", -0.25, ["c0_1"], {}, str(file)),
        Hit(2, "gone.png", "gone.png", -2.0, None, {}, str(tmp_path / f"gone.{suffix}")),
        Hit(3, "kept-nowhere.png", "u", -3.0),
    ]
    html = SearchResult("<b>red</b>", hits, 10, 1.0)._repr_html_()
    assert "&lt;b&gt;red" in html and "<script>" not in html and "a &amp; b&lt;script&gt;.png (-0.25)" in html
    assert html.count("<figure") == 3
    (data, *empty) = re.findall(r'src="data:image/(?:jpeg|webp);base64,([^"]*)"', html)
    assert f'src="data:image/{kind};base64,{data}"' in html
    assert base64.b64decode(data) == file.read_bytes() and not any(empty)
    thumbnail = hits[0].thumbnail
    assert thumbnail is not None and thumbnail.size == (20, 10) and thumbnail.getpixel((0, 0))[0] > 200
    assert hits[1].thumbnail is None and hits[2].thumbnail is None


def test_files_are_there_whatever_bytes_their_names_have(tmp_path: Path) -> None:
    """As `index` writes names that are no UTF-8, and one that really holds a backslash."""
    folder = os.fsencode(tmp_path)
    for name, shown in (
        (b"caf\xe9.png", "caf\\xe9.png"),
        (b"caf\\xe8.png", "caf\\xe8.png"),
        ("é.png".encode(), "é.png"),
    ):
        uri = f"{tmp_path}/{shown}"
        hit = Hit(1, uri, uri, 0.0)
        assert hit.missing, name
        Path(os.fsdecode(folder + b"/" + name)).touch()
        assert not hit.missing, name
