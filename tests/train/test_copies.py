"""Images that two splits share, by construction."""

from __future__ import annotations

import torch
from PIL import Image

from genret.errors import BadImage
from genret.kit.encode import ImageItem
from genret.train.copies import Pixels, copies
from genret.train.data import Listing
from tests.train.sides import copies_of, pixels_of, side


def test_pictures_are_known_by_file_and_by_pixels() -> None:
    assert copies_of(side("train", "ABcdA"), side("test", "XCDAd")) == [
        ("same-file", 0, 3),
        ("same-pixels", 2, 1),
        ("same-file", 3, 4),
        ("same-file", 4, 3),
    ]


def test_equal_vectors_of_other_pixels_are_other_pictures() -> None:
    equal = torch.randn(1, 8).expand(3, 8)
    assert copies_of(side("train", "ABC", equal), side("test", "XYZ", equal)) == []


def test_pictures_that_cannot_be_read_any_more() -> None:
    def gone() -> Image.Image:
        raise BadImage("gone")

    torn, searched = side("train", "a"), side("test", "AB")
    assert copies_of(torn, searched) == [("same-pixels", 0, 0)], "while it can be read"
    unread = Pixels(torn, Listing("train", torn.records, [ImageItem("file a", gone, "a")], []))
    assert unread.of(0) is None
    assert copies(torn, searched, pixels_of(searched) | {"train": unread}) == []


def test_pixels_are_hashed_with_their_shape() -> None:
    split = side("train", "AB")
    shapes = [Image.new("L", (1, 2)), Image.new("L", (2, 1))]
    items = [ImageItem(name, lambda shape=shape: shape, name) for name, shape in zip(split.hashes, shapes, strict=True)]
    pixels = Pixels(split, Listing("train", split.records, items, []))
    assert pixels.of(0) is not None and pixels.of(0) == pixels.of(0) != pixels.of(1)
