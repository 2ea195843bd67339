"""Which words of captions set some images apart from the rest.

N images   T captions   W distinct words   G groups
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

FUNCTION_WORDS = {
    "about", "above", "across", "after", "against", "along", "among", "and", "another", "are", "around", "back",
    "before", "behind", "beside", "between", "both", "down", "each", "for", "from", "front", "has", "have", "into",
    "its", "like", "near", "next", "onto", "other", "others", "over", "some", "something", "that", "the", "their",
    "them", "there", "these", "they", "this", "through", "toward", "towards", "under", "very", "which", "while",
    "who", "with", "without",
}  # fmt: skip
"""Stop words."""
MOST_WORDS = 20_000
"""Rarer words are left out."""


class CaptionWords(NamedTuple):
    """The words of captions, each counted once per image."""

    vocabulary: list[str]
    """(W,)"""
    images: Ints
    """(P,) rows of images, one entry for each image and word"""
    words: Ints
    """(P,)"""

    @classmethod
    def of(cls, captions: Iterable[tuple[int, str]]) -> CaptionWords:
        """Captions with the row of their image."""
        places: dict[str, int] = {}
        pairs = {
            (row, places.setdefault(word, len(places))) for row, text in captions for word in sorted(words_of(text))
        }
        table = np.array(sorted(pairs), np.int64).reshape(-1, 2)
        vocabulary = list(places)
        counts = np.bincount(table[:, 1], minlength=len(vocabulary))
        if len(vocabulary) > MOST_WORDS:
            kept = np.sort(np.argsort(-counts, kind="stable")[:MOST_WORDS])
            table = table[np.isin(table[:, 1], kept)]
            table[:, 1] = np.searchsorted(kept, table[:, 1])
            vocabulary = [vocabulary[place] for place in kept]
        return cls(vocabulary, table[:, 0], table[:, 1])

    def telling(self, group_of: Ints, num_groups: int, most: int) -> list[list[str]]:
        """group_of (N,): the group of each image, -1 for none → the words that set each group apart from all images.

        Sorted by n ln(n N / (n_w N_g)): how often the word occurs in the group, times how much more than elsewhere.
        """
        group, there = group_of[self.images], group_of[self.images] >= 0
        size = len(self.vocabulary)
        counts = np.bincount(group[there] * size + self.words[there], minlength=num_groups * size)
        counts = counts.reshape(num_groups, size).astype(np.float64)
        overall = np.maximum(np.bincount(self.words, minlength=size), 1)
        described = np.unique(self.images)
        sizes = np.bincount(group_of[described][group_of[described] >= 0], minlength=num_groups)[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            gain = np.where(counts > 0, counts * np.log(counts * len(described) / (overall * np.maximum(sizes, 1))), 0)
        order = np.argsort(-gain, axis=1, kind="stable")[:, :most]
        return [[self.vocabulary[place] for place in row if gain[g, place] > 1e-9] for g, row in enumerate(order)]


def words_of(text: str) -> set[str]:
    """Lower-case words of three letters or more, without function words."""
    return set(re.findall(r"[^\W\d_]{3,}", text.lower())) - FUNCTION_WORDS
