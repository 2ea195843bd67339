"""Captions that a picture may borrow: those of the pictures nearest to it that fit its own vector best.

For identifiers made of captions (`identifiers/semantic.py`) and made-up queries (`train/protocols.py`).

    N captioned images   T captions   S other images   D width of the shared space
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

CHUNK = 1024


def nearest_captions(
    vectors: Tensor, images: Tensor, captions: Tensor, starts: Tensor, neighbours: int
) -> Iterator[list[int]]:
    """For each of `vectors` (S, D), in order, the captions of its nearest `images` (N, D), the best fitting first.

    captions (T, D), those of image n at starts[n] .. starts[n + 1] - 1; all rows unit. Equals keep their order.
    """
    bounds = starts.tolist()
    for part in vectors.split(CHUNK):
        nearest = (part @ images.T).topk(min(neighbours, len(images)), dim=1).indices
        for vector, rows in zip(part, nearest.sort(dim=1).values.tolist(), strict=True):
            found = [caption for row in rows for caption in range(bounds[row], bounds[row + 1])]
            order = (captions[found].to(vector.dtype) @ vector).argsort(descending=True, stable=True)
            yield [found[place] for place in order.tolist()]
