"""When two captions are the same, and which captions an image can borrow from its nearest images.

N captioned images   T captions   S other images   D width of the shared space
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_SENTENCE = frozenset(".,;:!?…\"'`")
_BRACKETS_AND_DASHES = ("Pd", "Ps", "Pe", "Pi", "Pf")
CHUNK = 1024
"""Number of images compared at a time"""


def normalize_caption(caption: str) -> str:
    """Equal for captions of the same words: "A dog, running ." and "a dog running"; "keycap #" is not "keycap *"."""
    folded = unicodedata.normalize("NFKC", caption).casefold()
    letters = "".join(letter for letter in folded if not _between_words(letter))
    return letters or "".join(folded.split())


def _between_words(letter: str) -> bool:
    return letter.isspace() or letter in _SENTENCE or unicodedata.category(letter) in _BRACKETS_AND_DASHES


def nearest_captions(
    vectors: Tensor, images: Tensor, captions: Tensor, starts: Tensor, neighbours: int
) -> Iterator[list[int]]:
    """For each of `vectors` (S, D), in order, the captions of its nearest `images` (N, D), the most similar first.

    captions (T, D): those of image n are starts[n] .. starts[n + 1] - 1. All rows are unit. Ties keep their order. Used
    for identifiers made of captions (`identifiers/semantic.py`) and for pseudo-queries (`train/protocols.py`).
    """
    bounds = starts.tolist()
    for part in vectors.split(CHUNK):
        nearest = (part @ images.T).topk(min(neighbours, len(images)), dim=1).indices
        for vector, rows in zip(part, nearest.sort(dim=1).values.tolist(), strict=True):
            found = [caption for row in rows for caption in range(bounds[row], bounds[row + 1])]
            order = (captions[found].to(vector.dtype) @ vector).argsort(descending=True, stable=True)
            yield [found[place] for place in order.tolist()]
