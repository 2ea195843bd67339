"""The identifiers of a catalog as a tree: below each prefix, example images and the words of captions that lead there.

Only the catalog is read.

    N images   M levels
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genret.api import Vokens
from genret.api.described import described
from genret.catalog.store import Catalog, Snapshot
from genret.errors import GenretError, UsageError
from genret.lab.explain.words import CaptionWords, Ints

Flags = NDArray[np.bool_]

MOST_CHILDREN = 256
"""The symbols with the most images; further ones are counted, not listed."""
MOST_CAPTIONS = 200_000
"""Captions whose words are counted, evenly spread."""


@described
class Node(NamedTuple):
    """A prefix of identifiers."""

    symbols: list[str]
    """From the first level on; empty for the root"""
    num_images: int
    """Searchable images below"""
    image_ids: list[str]
    """A few of them, evenly spread"""
    words: list[str]
    """Of captions, the words that set the images below apart, the most telling first"""
    num_children: int
    """Distinct next symbols of searchable images"""
    children: list[Node]
    """The next symbols, those with the most images first; empty for nodes that are children themselves"""

    def as_json(self) -> dict[str, Any]:
        return self._asdict() | {"children": [child.as_json() for child in self.children]}


class Codebook:
    """The tree of one version of a catalog. Memory: the codes of all images, and the words of their captions."""

    def __init__(self, state: str, keys: Ints, codes: Ints, searchable: Flags, words: CaptionWords):
        self.state, self.keys, self.codes, self.searchable, self.words = state, keys, codes, searchable, words

    @classmethod
    def read(cls, catalog: Catalog) -> Codebook:
        """Of an image's identifiers the first is used; `GenretError` if there are none, or if they are texts."""
        with catalog.snapshot() as snapshot:
            found = snapshot.read_identifiers()
            if found.codes is None:
                what = "identifiers are texts" if found.texts else "images have no identifiers"
                raise GenretError(f"there is no codebook to show: this run's {what}")
            keys, first = np.unique(found.image_keys, return_index=True)
            searchable = np.isin(keys, snapshot.searchable_keys())
            words = CaptionWords.of(_captions(snapshot, keys))
            return cls(snapshot.state, keys, found.codes[first].astype(np.int64), searchable, words)

    def node(self, catalog: Snapshot, symbols: Sequence[str] = (), *, images: int = 6, words: int = 8) -> Node:
        """The prefix of these symbols with its next symbols; `UsageError` if no image's identifier begins so."""
        codes = [_code(level, symbol) for level, symbol in enumerate(symbols)]
        depth, num_levels = len(codes), self.codes.shape[1]
        below = (
            (self.codes[:, :depth] == np.array(codes, np.int64)).all(1) if depth <= num_levels else np.zeros(0, bool)
        )
        if not below.any():
            raise UsageError(f"no image's identifier begins with {' '.join(symbols)}")
        rows = np.flatnonzero(below)
        own = self._made(catalog, list(symbols), [rows], images, words, [""])[0]
        if depth == num_levels:
            return own
        following = self.codes[rows, depth]
        used = following[self.searchable[rows] & (following >= 0)]
        names, counts = np.unique(used, return_counts=True)
        chosen = names[np.argsort(-counts, kind="stable")][:MOST_CHILDREN]
        groups = [rows[following == code] for code in chosen.tolist()]
        labels = [Vokens().name(depth, code) for code in chosen.tolist()]
        children = self._made(catalog, list(symbols), groups, images, words, labels)
        return own._replace(num_children=len(names), children=children)

    def _made(
        self, catalog: Snapshot, prefix: list[str], groups: list[Ints], images: int, words: int, labels: list[str]
    ) -> list[Node]:
        group_of = np.full(len(self.keys), -1)
        for number, rows in enumerate(groups):
            group_of[rows] = number
        told = self.words.telling(group_of, len(groups), words)
        found = [rows[self.searchable[rows]] for rows in groups]
        spread = [rows[np.unique(np.linspace(0, len(rows) - 1, min(images, len(rows))).astype(int))] for rows in found]
        records = iter(catalog.lookup(self.keys[np.concatenate(spread)]) if groups else ())
        return [
            Node(
                [*prefix, label] if label else prefix,
                len(rows),
                [next(records).image_id for _ in some],
                said,
                0,
                [],
            )
            for label, rows, some, said in zip(labels, found, spread, told, strict=True)
        ]


def _code(level: int, symbol: str) -> int:
    parts = re.fullmatch(rf"c{level}_(\d{{1,9}})", symbol)
    if parts is None:
        raise UsageError(f"'{symbol}' is no symbol of level {level + 1}; they read {Vokens().name(level, 0)}")
    return int(parts[1])


def _captions(snapshot: Snapshot, keys: Ints) -> list[tuple[int, str]]:
    """Captions of all splits, with the row of their image among `keys`."""
    told = [snapshot.captions(name) for name in snapshot.splits() if name]
    owners = np.concatenate([part.image_keys for part in told] or [np.zeros(0, np.int64)])
    texts = [text for part in told for text in part.texts]
    rows = np.searchsorted(keys, owners).clip(max=max(0, len(keys) - 1))
    known = np.flatnonzero(keys[rows] == owners)
    known = known[np.unique(np.linspace(0, len(known) - 1, min(MOST_CAPTIONS, len(known))).astype(int))]
    return [(int(rows[place]), texts[place]) for place in known.tolist()]
