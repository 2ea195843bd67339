"""Finds overlaps of two splits: identical images (by file or pixels), near-duplicates, captions of the same words.

N images of the known split, S of the searched split   D width of the towers' vectors   T captions
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from genret.kit.captions import normalize_caption
from genret.search.dense import dense_search
from genret.train.copies import Copy, centered
from genret.train.data import Split

Kind = Literal["same-file", "same-pixels", "near-duplicate", "same-caption"]

NEAR = 0.85
"""Cosine of two images' centred tower vectors above which they are near-duplicates. Without centring, the vectors of
some towers (CLIP's above all) are all similar. On Flickr8k with EfficientNet-Lite0 a photograph and itself at 3/4 of
its size as JPEG of quality 75 have 0.90 in the median, and 5 % of them less than 0.83; of 1,000 searched photographs 1
% have a nearest training photograph above 0.80, 0.1 % above 0.90, and these are shots of one scene."""
NEIGHBOURS = 5
"""Maximum number of near-duplicates listed per image."""


@dataclass(frozen=True, kw_only=True)
class Leak:
    """One overlap of a searched split with another."""

    kind: Kind
    split: str
    image_id: str
    uri: str
    other_split: str
    other_image_id: str
    other_uri: str
    caption: str | None = None
    """As in the searched split"""
    similarity: float | None = None
    left_out: bool = False
    """Whether the other image was removed from its split for this reason"""


def same_pictures(known: Split, searched: Split, copies: Iterable[Copy], left_out: bool) -> list[Leak]:
    """`copies` of `known` in `searched` as leaks."""
    return [_leak(one.kind, searched, one.searched, known, one.row, left_out=left_out) for one in copies]


def near_duplicates(known: Split, searched: Split, apart_from: Iterable[int]) -> list[Leak]:
    """Images of `searched` that look like one of `known`, except its rows that are exact copies."""
    rows = _others(len(known.records), apart_from)
    if not len(rows) or not len(searched.records):
        return []
    images, queries = centered(known, searched)
    hits = dense_search(queries, images[rows], NEIGHBOURS)
    return [
        _leak("near-duplicate", searched, place, known, int(rows[row]), similarity=round(score, 4))
        for place, (near, scores) in enumerate(zip(hits.rows.tolist(), hits.scores.tolist(), strict=True))
        for row, score in zip(near, scores, strict=True)
        if score >= NEAR
    ]


def same_captions(known: Split, searched: Split, apart_from: Iterable[int]) -> list[Leak]:
    """Captions of `searched` whose words are also a caption in `known`, with the first image there that has it."""
    gone = set(apart_from)
    bearers: dict[str, int] = {}
    for caption, row in zip(known.captions, known.owners.tolist(), strict=True):
        if row not in gone:
            bearers.setdefault(normalize_caption(caption), row)
    return [
        _leak("same-caption", searched, place, known, bearers[words], caption=caption)
        for caption, place in zip(searched.captions, searched.owners.tolist(), strict=True)
        if (words := normalize_caption(caption)) in bearers
    ]


def _others(count: int, rows: Iterable[int]) -> Tensor:
    keep = torch.ones(count, dtype=torch.bool)
    keep[torch.tensor(sorted(rows), dtype=torch.int64)] = False
    return keep.nonzero()[:, 0]


def _leak(
    kind: Kind,
    searched: Split,
    place: int,
    known: Split,
    row: int,
    caption: str | None = None,
    similarity: float | None = None,
    left_out: bool = False,
) -> Leak:
    image, other = searched.records[place], known.records[row]
    return Leak(
        kind=kind,
        split=searched.name,
        image_id=image.image_id,
        uri=image.uri,
        other_split=known.name,
        other_image_id=other.image_id,
        other_uri=other.uri,
        caption=caption,
        similarity=similarity,
        left_out=left_out,
    )
