"""Pictures in a page are small, and are what they were."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genret.lab.report.thumbs import MOST_BYTES, SIDE, ThumbnailUris, small
from genret.search.thumbnails import Thumbnails


def noise(side: int = 256) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


@pytest.mark.parametrize("most", [10_000, 2_000, 600])
def test_even_noise_is_made_to_fit(most: int) -> None:
    assert len(small(noise(), most)) <= most


def test_a_picture_stays_what_it_is(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 200, dtype=np.uint8)
    picture = Image.fromarray(np.stack([np.tile(ramp, (100, 1))] * 3, 2))
    Thumbnails(tmp_path / "thumbnails").save("ab" * 32, picture)
    uri = ThumbnailUris(tmp_path, 10).uri("ab" * 32)
    assert uri is not None and uri.startswith("data:image/webp;base64,")
    data = base64.b64decode(uri.partition(",")[2])
    shown = Image.open(io.BytesIO(data))
    assert shown.format == "WEBP" and shown.size == (SIDE, SIDE // 2) and len(data) <= MOST_BYTES
    drawn = np.asarray(shown.convert("RGB"), int)
    assert np.abs(drawn - np.asarray(picture.resize(shown.size), int)).mean() < 4


def test_what_is_no_picture_is_left_out(tmp_path: Path) -> None:
    thumbnails = Thumbnails(tmp_path / "thumbnails")
    path = thumbnails.path("cd" * 32)
    path.parent.mkdir(parents=True)
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    pictures = ThumbnailUris(tmp_path, 1)
    assert pictures.uri("cd" * 32) is None and pictures.uri("ef" * 32) is None


def test_many_pictures_become_smaller(tmp_path: Path) -> None:
    Thumbnails(tmp_path / "thumbnails").save("ab" * 32, noise())
    few, many = (len(ThumbnailUris(tmp_path, count).uri("ab" * 32) or "") for count in (10, 1000))
    assert many < few / 3 and many * 1000 < 3_000_000
