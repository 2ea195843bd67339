"""Images that are in two splits, by file or by pixels, whatever they are called: training goes without them."""

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
"""Cosine from which pixels are compared: equal pixels have equal vectors, but for rounding and half precision."""


class Copy(NamedTuple):
    kind: Literal["same-file", "same-pixels"]
    row: int
    """Of the split that is known"""
    searched: int
    """Row of the split that is searched"""


@dataclass(frozen=True, kw_only=True)
class TrainingSplits:
    """What a training begins with; `train` still holds its copies of searched images."""

    train: Split
    dev: Split
    test: Split
    copies: dict[str, list[Copy]]
    """Of training images, by the name of the split that they are also in"""
    pixels: dict[str, Pixels]
    """By split"""
    concepts: str | None
    """`seen-concepts` where the data set shares wordings between splits by design"""
    remark: str | None
    """What made-up captions have in common with true ones"""


class Pixels:
    """Hashes of a split's decoded images, made when asked for."""

    def __init__(self, split: Split, listing: Listing):
        self._hashes = split.hashes
        self._open = {item.key: item.load for item in listing.items}

    def of(self, row: int) -> str | None:
        """None if the image cannot be read any more."""
        try:
            image = self._open[self._hashes[row]]()
        except BadImage:
            return None
        return content_hash(repr(image.size).encode() + image.tobytes())


def copies(known: Split, searched: Split, pixels: dict[str, Pixels]) -> list[Copy]:
    """Images of `known` that are also in `searched`, each with one twin, by their rows."""
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
    """Both splits' tower vectors less the mean of all, unit rows: with it, those of some towers are all alike."""
    sides = [split.images[:, 0].float() for split in (known, searched)]
    mean = sum(side.sum(0) for side in sides) / sum(map(len, sides))
    first, second = (torch.nn.functional.normalize(side - mean, dim=1) for side in sides)
    return first, second


def _suspects(known: Split, searched: Split) -> tuple[list[int], list[int]]:
    """Rows of `searched` and of `known` whose vectors are so alike that the pixels may be the same."""
    if not known.records or not searched.records:
        return [], []
    images, queries = centered(known, searched)
    near = dense_search(queries, images, 1).scores[:, 0] >= LOOK_AGAIN
    if not near.any():
        return [], []
    far = dense_search(images, queries[near], 1).scores[:, 0] >= LOOK_AGAIN
    return near.nonzero()[:, 0].tolist(), far.nonzero()[:, 0].tolist()


def _first(contents: Iterable[str | None]) -> dict[str, int]:
    """Each content's first place."""
    places: dict[str, int] = {}
    for place, content in enumerate(contents):
        if content is not None:
            places.setdefault(content, place)
    return places
