"""Finds what one split has in common with another: the same picture, by file or by pixels, pictures that look alike,
captions of the same words. It knows vectors, hashes and words; what to do about a finding is the caller's.

    N images of the split that is known, S of the one that is searched   D width of the towers' vectors   T captions
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from genret.kit.wording import wording
from genret.search.dense import dense_search

Kind = Literal["same-file", "same-pixels", "near-duplicate", "same-caption"]

NEAR = 0.85
"""Cosine of two images' tower vectors, less the mean vector, from which they are near-duplicates. With that mean, the
vectors of some towers (CLIP's above all) are all alike. On Flickr8k with EfficientNet-Lite0 a photograph and itself at
3/4 of its size as JPEG of quality 75 have 0.90 in the median, and 5 % of them less than 0.83; of 1,000 searched
photographs 1 % have a nearest training photograph above 0.80, 0.1 % above 0.90, and these are shots of one scene."""
LOOK_AGAIN = 0.99
"""Cosine from which pixels are compared: equal pixels have equal vectors, but for rounding and half precision."""
NEIGHBOURS = 5
"""Near-duplicates of one image that are named."""


class Side(NamedTuple):
    """N images of a split."""

    split: str
    image_ids: Sequence[str]
    uris: Sequence[str]
    hashes: Sequence[str]
    """sha256 of each file"""
    features: Tensor
    """(N, D) the image tower's vectors, before any head"""
    captions: Sequence[str]
    owners: Tensor
    """(T,)"""
    pixels: Callable[[int], str | None]
    """A hash of an image's decoded pixels; None if it cannot be read any more"""


class Leak(NamedTuple):
    """One thing that a searched split has in common with another."""

    kind: Kind
    split: str
    image_id: str
    uri: str
    other_split: str
    other_image_id: str
    other_uri: str
    caption: str | None = None
    """As the searched image bears it"""
    similarity: float | None = None
    left_out: bool = False
    """Whether the other image was left out of its split because of it"""


def same_pictures(known: Side, searched: Side, left_out: bool) -> list[tuple[int, Leak]]:
    """Images of `known` that are also in `searched`, whatever they are called: row of `known`, one twin."""
    found: dict[int, Leak] = {}
    twins = _first(searched.hashes)
    for row, content in enumerate(known.hashes):
        if content in twins:
            found[row] = _leak("same-file", searched, twins[content], known, row, left_out=left_out)
    near, far = _suspects(known, searched)
    pixels = _first(searched.pixels(row) for row in near)
    for row in far:
        shown = None if row in found else known.pixels(row)
        if shown is not None and shown in pixels:
            found[row] = _leak("same-pixels", searched, near[pixels[shown]], known, row, left_out=left_out)
    return sorted(found.items())


def near_duplicates(known: Side, searched: Side, apart_from: Iterable[int]) -> list[Leak]:
    """Images of `searched` that look like one of `known`, apart from these rows of it, which are spoken for."""
    rows = _others(len(known.image_ids), apart_from)
    if not len(rows) or not len(searched.image_ids):
        return []
    images, queries = _centred(known, searched)
    hits = dense_search(queries, images[rows], NEIGHBOURS)
    return [
        _leak("near-duplicate", searched, place, known, int(rows[row]), similarity=round(score, 4))
        for place, (near, scores) in enumerate(zip(hits.rows.tolist(), hits.scores.tolist(), strict=True))
        for row, score in zip(near, scores, strict=True)
        if score >= NEAR
    ]


def same_captions(known: Side, searched: Side, apart_from: Iterable[int]) -> list[Leak]:
    """Captions of `searched` whose words are also a caption in `known`, with the first image there that bears them."""
    gone = set(apart_from)
    bearers: dict[str, int] = {}
    for caption, row in zip(known.captions, known.owners.tolist(), strict=True):
        if row not in gone:
            bearers.setdefault(wording(caption), row)
    return [
        _leak("same-caption", searched, place, known, bearers[words], caption=caption)
        for caption, place in zip(searched.captions, searched.owners.tolist(), strict=True)
        if (words := wording(caption)) in bearers
    ]


def _suspects(known: Side, searched: Side) -> tuple[list[int], list[int]]:
    """Rows of `searched` and of `known` whose vectors are so alike that the pixels may be the same."""
    if not len(known.image_ids) or not len(searched.image_ids):
        return [], []
    images, queries = _centred(known, searched)
    near = dense_search(queries, images, 1).scores[:, 0] >= LOOK_AGAIN
    if not near.any():
        return [], []
    far = dense_search(images, queries[near], 1).scores[:, 0] >= LOOK_AGAIN
    return near.nonzero()[:, 0].tolist(), far.nonzero()[:, 0].tolist()


def _centred(known: Side, searched: Side) -> tuple[Tensor, Tensor]:
    """Both sides' vectors less the mean of all, unit rows."""
    total = known.features.sum(0) + searched.features.sum(0)
    mean = total / (len(known.features) + len(searched.features))
    first, second = (torch.nn.functional.normalize(side.features - mean, dim=1) for side in (known, searched))
    return first, second


def _first(contents: Iterable[str | None]) -> dict[str, int]:
    """Each content's first place."""
    places: dict[str, int] = {}
    for place, content in enumerate(contents):
        if content is not None:
            places.setdefault(content, place)
    return places


def _others(count: int, rows: Iterable[int]) -> Tensor:
    keep = torch.ones(count, dtype=torch.bool)
    keep[torch.tensor(sorted(rows), dtype=torch.int64)] = False
    return keep.nonzero()[:, 0]


def _leak(
    kind: Kind,
    searched: Side,
    place: int,
    known: Side,
    row: int,
    caption: str | None = None,
    similarity: float | None = None,
    left_out: bool = False,
) -> Leak:
    names = (searched.split, searched.image_ids[place], searched.uris[place])
    others = (known.split, known.image_ids[row], known.uris[row])
    return Leak(kind, *names, *others, caption, similarity, left_out)
