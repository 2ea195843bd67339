"""Images that occur in two splits, by file or by pixels, under any name: training leaves them out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from genret.errors import BadImage
from genret.kit.images import content_hash
from genret.search.dense import dense_search
from genret.train.data import Listing, Split

LOOK_AGAIN = 0.99
"""Cosine from which pixels are compared: equal pixels have equal vectors, except for rounding and half precision."""


class Copy(NamedTuple):
    kind: Literal["same-file", "same-pixels"]
    row: int
    """Of the split that is known"""
    searched: int
    """Row of the split that is searched"""


@dataclass(frozen=True, kw_only=True)
class TrainingSplits:
    """The input of a training; `train` still contains its copies of test images."""

    train: Split
    dev: Split
    test: Split
    copies: dict[str, list[Copy]]
    """Training images by the name of the other split that contains them"""
    pixels: dict[str, Pixels]
    """By split"""
    concepts: str | None
    """`seen-concepts` if the dataset shares captions between splits by design"""
    remark: str | None
    """Warning about pseudo-queries that equal true captions"""


class Pixels:
    """Hashes of a split's decoded images, computed on demand."""

    def __init__(self, split: Split, listing: Listing):
        self._hashes = split.hashes
        self._open = {item.key: item.load for item in listing.items}

    def of(self, row: int) -> str | None:
        """None if the image can no longer be read."""
        try:
            image = self._open[self._hashes[row]]()
        except BadImage:
            return None
        return content_hash(repr(image.size).encode() + image.tobytes())


def copies(known: Split, searched: Split, pixels: dict[str, Pixels]) -> list[Copy]:
    """Images of `known` that are also in `searched`, each with one match, by their rows."""
    found: dict[int, Copy] = {}
    twins = _first(searched.hashes)
    for row, content in enumerate(known.hashes):
        if content in twins:
            found[row] = Copy("same-file", row, twins[content])
    near, far = _suspects(known, searched)
    shown = _first(pixels[searched.name].of(row) for row in near)
    for row in far:
        seen = None if row in found else pixels[known.name].of(row)
        if seen is not None and seen in shown:
            found[row] = Copy("same-pixels", row, near[shown[seen]])
    return [found[row] for row in sorted(found)]


def centered(known: Split, searched: Split) -> tuple[Tensor, Tensor]:
    """Both splits' tower vectors minus the mean of all, unit rows; without centering, some towers' are all similar."""
    sides = [split.images[:, 0].float() for split in (known, searched)]
    mean = sum(side.sum(0) for side in sides) / sum(map(len, sides))
    first, second = (torch.nn.functional.normalize(side - mean, dim=1) for side in sides)
    return first, second


def _suspects(known: Split, searched: Split) -> tuple[list[int], list[int]]:
    """Rows of `searched` and of `known` whose vectors are so similar that the pixels may be equal."""
    if not known.records or not searched.records:
        return [], []
    images, queries = centered(known, searched)
    near = dense_search(queries, images, 1).scores[:, 0] >= LOOK_AGAIN
    if not near.any():
        return [], []
    far = dense_search(images, queries[near], 1).scores[:, 0] >= LOOK_AGAIN
    return near.nonzero()[:, 0].tolist(), far.nonzero()[:, 0].tolist()


def _first(contents: Iterable[str | None]) -> dict[str, int]:
    """The first index of each content."""
    places: dict[str, int] = {}
    for place, content in enumerate(contents):
        if content is not None:
            places.setdefault(content, place)
    return places
