"""Nothing is encoded twice, nothing is lost, and a damaged cache costs time but no results."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genret.api import Encoder
from genret.errors import BadImage, GenretError
from genret.kit.encode import ImageItem, encode_images, encode_texts
from genret.kit.feature_cache import FeatureCache


class CountingEncoder(Encoder):
    """The mean colour of a picture and the view's number; counts what it is asked, and may be unplugged."""

    def __init__(self, fail_after: int | None = None) -> None:
        super().__init__()
        self.images = 0
        self.texts: list[list[str]] = []
        self.fail_after = fail_after

    def tower_key(self, modality: str) -> str:
        return modality

    def image_features(self, images: Sequence[Image.Image], view: int = 0) -> torch.Tensor:
        if self.fail_after is not None and self.images >= self.fail_after:
            raise KeyboardInterrupt
        self.images += len(images)
        means = [[*np.asarray(image, dtype=np.float32).mean((0, 1)), view, 0.1] for image in images]
        return torch.tensor(np.array(means), dtype=torch.float32)

    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        self.texts.append(list(texts))
        return torch.tensor([[len(text), sum(map(ord, text))] for text in texts], dtype=torch.float32)


def picture(i: int) -> Callable[[], Image.Image]:
    return lambda: Image.new("RGB", (4, 4), (i % 256, i // 256, 100))


def items(n: int) -> list[ImageItem]:
    return [ImageItem(f"key{i}", picture(i), f"{i}.png") for i in range(n)]


def expected(n: int, views: int) -> torch.Tensor:
    rows = [[[i % 256, i // 256, 100, v, np.float16(0.1)] for v in range(views)] for i in range(n)]
    return torch.tensor(np.array(rows), dtype=torch.float32)


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache.of_tower(tmp_path, "tower")


def test_interrupted_encoding_continues(cache: FeatureCache) -> None:
    first = CountingEncoder(fail_after=16)
    with pytest.raises(KeyboardInterrupt):
        encode_images(first, items(20), cache, views=2, batch_size=4)
    cache.close()
    second, again = CountingEncoder(), CountingEncoder()
    reopened = FeatureCache(cache.path, "tower")
    result = encode_images(second, items(20), reopened, views=2, batch_size=4)
    assert first.images == 16 and second.images == 40 - 16
    assert torch.equal(result.features, expected(20, 2)) and result.rows.tolist() == list(range(20))
    assert (
        torch.equal(encode_images(again, items(20), reopened, views=2).features, result.features) and not again.images
    )
    more = encode_images(again, items(20), reopened, views=3)  # only the new view
    assert again.images == 20 and torch.equal(more.features, expected(20, 3))


def test_same_picture_once_and_bad_ones_skipped(cache: FeatureCache) -> None:
    def broken() -> Image.Image:
        raise BadImage("3.png: truncated")

    encoder = CountingEncoder()
    given = [*items(3), ImageItem("bad", broken, "3.png"), *items(2), ImageItem("bad", broken, "copy.png")]
    advanced: list[int] = []

    class Bar:
        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None: ...

        def advance(self, n: int) -> None:
            advanced.append(n)

    totals: list[int] = []
    result = encode_images(
        encoder, iter(given), cache, batch_size=2, progress=lambda label, total: (totals.append(total), Bar())[1]
    )
    assert encoder.images == 3 and sum(advanced) == totals[0] == 4
    assert result.rows.tolist() == [0, 1, 2, 4, 5]
    assert torch.equal(result.features, expected(3, 1)[[0, 1, 2, 0, 1]])
    assert result.skipped == [("3.png", "3.png: truncated"), ("copy.png", "copy.png: truncated")]
    nothing = encode_images(encoder, [given[3]], cache)
    assert len(nothing.features) == 0 and len(nothing.skipped) == 1


def test_few_pictures_wait_in_memory(cache: FeatureCache) -> None:
    opened = 0

    def load() -> Image.Image:
        nonlocal opened
        opened += 1
        return Image.new("RGB", (3000, 10))

    class Watching(CountingEncoder):
        def image_features(self, images: Sequence[Image.Image], view: int = 0) -> torch.Tensor:
            assert opened - self.images <= 3 * 4 and max(images[0].size) <= 1024
            return super().image_features(images, view)

    encode_images(Watching(), [ImageItem(str(i), load) for i in range(60)], cache, batch_size=4)
    assert opened == 60


def test_texts_once_each_by_length(cache: FeatureCache) -> None:
    encoder = CountingEncoder()
    texts = ["a dog", "cat", "a dog", "the longest of all", "bird"]
    vectors = encode_texts(encoder, texts, cache, batch_size=2)
    assert encoder.texts == [["the longest of all", "a dog"], ["bird", "cat"]]
    assert vectors[:, 0].tolist() == [5, 3, 5, 18, 4]
    assert torch.equal(encode_texts(encoder, texts[::-1], cache), vectors.flip(0)) and len(encoder.texts) == 2
    assert encode_texts(encoder, [], cache).shape[0] == 0


def test_large_values_keep_their_range(cache: FeatureCache) -> None:
    vectors = {"small": np.float32([0.1, 2.0]), "large": np.float32([1e6, 0.1])}
    cache.put_many(vectors)
    found = cache.get_many([*vectors, "absent"])
    assert set(found) == set(vectors) == cache.present([*vectors, "absent"])
    np.testing.assert_array_equal(found["large"], vectors["large"])
    np.testing.assert_allclose(found["small"], vectors["small"], rtol=1e-3)


@pytest.mark.parametrize("damage", ["garbage", "hole", "other tower", "other width"])
def test_damaged_caches_start_anew(damage: str, cache: FeatureCache, caplog: pytest.LogCaptureFixture) -> None:
    encode_images(CountingEncoder(), items(400), cache, views=2)
    cache.close()
    encoder, tower = CountingEncoder(), "tower"
    if damage == "garbage":
        cache.path.write_bytes(b"this is no database" * 1000)
    elif damage == "hole":
        content = bytearray(cache.path.read_bytes())
        content[8192 : len(content) - 4096] = b"\xff" * (len(content) - 4096 - 8192)
        cache.path.write_bytes(content)
    elif damage == "other tower":
        tower = "another tower"
    else:
        with sqlite3.connect(cache.path) as connection:
            connection.execute("UPDATE facts SET value = 7 WHERE name = 'width'")
        connection.close()
    with caplog.at_level(logging.WARNING):
        result = encode_images(encoder, items(400), FeatureCache(cache.path, tower), views=2)
    assert torch.equal(result.features, expected(400, 2)) and encoder.images == 800
    assert "starts anew" in caplog.text


def test_unusable_places_are_named(tmp_path: Path, cache: FeatureCache) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GenretError, match=r"file/x.sqlite cannot be used.*GENRET_FEATURES"):
        FeatureCache(tmp_path / "file" / "x.sqlite")
    cache.put_many({"a": np.zeros(512, np.float32)})
    pages = cache._connection.execute("PRAGMA page_count").fetchone()[0]  # type: ignore[union-attr]
    cache._connection.execute(f"PRAGMA max_page_count = {pages}")  # type: ignore[union-attr]
    with pytest.raises(GenretError, match=rf"{cache.path} cannot be used: database or disk is full"):
        cache.put_many({str(i): np.zeros(512, np.float32) for i in range(100)})
    assert cache.present(["a", "5"]) == {"a"}  # all or nothing


def test_nan_is_an_error(cache: FeatureCache) -> None:
    class Broken(CountingEncoder):
        def text_features(self, texts: Sequence[str]) -> torch.Tensor:
            return torch.full((len(texts), 2), torch.nan)

    with pytest.raises(GenretError, match="text tower returned NaN"):
        encode_texts(Broken(), ["a"], cache)
    assert not cache.present(["a"])


def test_two_processes_write_at_once(cache: FeatureCache) -> None:
    program = (
        "import sys, numpy as np; from pathlib import Path; from genret.kit.feature_cache import FeatureCache\n"
        "cache = FeatureCache(Path(sys.argv[1]), 'tower')\n"
        "for i in range(40): cache.put_many({f'{sys.argv[2]}{i}': np.full(8, i, np.float32)})"
    )
    both = [subprocess.Popen([sys.executable, "-c", program, str(cache.path), name]) for name in "ab"]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    found = FeatureCache(cache.path, "tower").get_many([f"{name}{i}" for name in "ab" for i in range(40)])
    assert len(found) == 80 and all((found[f"{name}{i}"] == i).all() for name in "ab" for i in range(40))
