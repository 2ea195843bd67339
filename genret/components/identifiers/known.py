"""Numbers the images of a fit, for numeric, string and atomic identifiers.

Numbers depend on image ids only, not on content. New images get the next numbers, from the counts that the caller
gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from genret import api
from genret.api import Corpus
from genret.errors import GenretError
from genret.toolbox import saving as stored

Order = Literal["shuffled", "dataset"]


class NumberingConfig(api.Config):
    order: Order = "shuffled"
    """Order of the numbers: random (seeded), or the order of the data set, where neighbours may be similar, so that
    numbers carry some information."""


class KnownImages:
    """Images of the fit; their index in `image_ids` is their number."""

    def __init__(self, image_ids: Sequence[str]):
        self.image_ids = tuple(dict.fromkeys(image_ids))
        self._number = {image_id: number for number, image_id in enumerate(self.image_ids)}

    @classmethod
    def numbered(cls, image_ids: Sequence[str], order: Order, seed: int) -> KnownImages:
        """Assigns numbers at random, or in the given order."""
        if order == "dataset":
            return cls(image_ids)
        lot = torch.randperm(len(image_ids), generator=torch.Generator().manual_seed(seed))
        return cls([image_ids[row] for row in lot.tolist()])

    def __len__(self) -> int:
        return len(self.image_ids)

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._number

    def numbers(self, corpus: Corpus) -> Tensor:
        """(N,) int64. A new image's number follows from how many images were named since the fit."""
        first = len(self) + corpus.named_before
        return torch.tensor(
            [self._number.get(image_id, first + place) for place, image_id in enumerate(corpus.image_ids)],
            dtype=torch.int64,
        )

    def save(self, folder: Path) -> None:
        """Writes `images.json`."""
        stored.save(folder, "images", {}, {"image_ids": list(self.image_ids)})

    @classmethod
    def load(cls, folder: Path) -> KnownImages:
        """Reads what `save` wrote."""
        with stored.reading(folder, "identifier model"):
            return cls(texts_of(stored.load(folder, "images").facts, "image_ids"))


def fitted(known: KnownImages | None, scheme: str) -> KnownImages:
    """The images of the fit; an error if there was none."""
    if known is None:
        raise GenretError(f"this {scheme} identifier is not fitted yet; train a run, or load one")
    return known


def texts_of(facts: dict[str, Any], key: str) -> list[str]:
    """Checks for a list of texts in data read from a file."""
    texts = facts[key]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{key} is no list of texts")
    return texts
