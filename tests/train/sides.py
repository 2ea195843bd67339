"""Splits of single letters, with vectors and pixels to match, and no data set behind them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from PIL import Image

from genret.api import Record
from genret.kit.encode import ImageItem
from genret.train.copies import Copy, Pixels, TrainingSplits, copies
from genret.train.data import Listing, Split


def side(name: str, contents: str, features: torch.Tensor | None = None, captions: Sequence[str] = ()) -> Split:
    """An image per letter. Small letters are another file of the large one's pixels; both have its vector."""
    if features is None:
        vectors = torch.randn(26, 8, generator=torch.Generator().manual_seed(0))
        features = torch.stack([vectors[ord(letter.upper()) - 65] for letter in contents])
    records = [Record(f"{name}/{place}", f"{name}/{place}") for place in range(len(contents))]
    words = list(captions) or [f"{record.image_id}'s" for record in records]
    hashes = [f"file {letter}" for letter in contents]
    texts, owners = torch.zeros(len(words), 1), torch.arange(len(words))
    return Split(
        name=name,
        records=records,
        hashes=hashes,
        images=features[:, None],
        captions=words,
        texts=texts,
        owners=owners,
        skipped=[],
    )


def pixels_of(*splits: Split) -> dict[str, Pixels]:
    """A picture of a single grey value for each letter, by the name of its split."""
    return {split.name: Pixels(split, Listing(split.name, split.records, _items(split), [])) for split in splits}


def _items(split: Split) -> list[ImageItem]:
    return [ImageItem(content, partial(_picture, content[-1]), content) for content in split.hashes]


def _picture(letter: str) -> Image.Image:
    return Image.new("L", (1, 1), ord(letter.upper()))


def copies_of(known: Split, searched: Split) -> list[Copy]:
    return copies(known, searched, pixels_of(known, searched))


def training(train: Split, dev: Split, test: Split, concepts: str | None = None) -> TrainingSplits:
    """What a training hands to its evaluators."""
    pixels = pixels_of(train, dev, test)
    twins = {split.name: copies(train, split, pixels) for split in (dev, test)}
    return TrainingSplits(train=train, dev=dev, test=test, copies=twins, pixels=pixels, concepts=concepts, remark=None)
