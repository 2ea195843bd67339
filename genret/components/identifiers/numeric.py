"""GRACE's numeric identifiers (arXiv 2402.10805): an image's number, one new token per digit.

They do not depend on content: a model can only memorize them, and those of new images only guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from genret.api import Corpus, FitContext, Identifier, Identifiers, Loss, Vokens
from genret.components.identifiers import known
from genret.components.identifiers.known import KnownImages, NumberingConfig
from genret.errors import GenretError, UsageError
from genret.toolbox import saving as stored

MOST_DIGITS = 18
"""Limit, so that numbers fit 64-bit integers."""


class NumericIdentifier(Identifier):
    """A number with a fixed count of digits and leading zeros; all positions share ten tokens."""

    new_images = "assigned"

    class Config(NumberingConfig):
        num_digits: int | None = Field(None, ge=1, le=MOST_DIGITS)
        """Digits per number; null: one more than the training images need, to leave numbers for new images."""

    def __init__(self, config: Any = None, **resources: Any):
        super().__init__(config, **resources)
        self.images: KnownImages | None = None

    def fit(self, train: Corpus, losses: Mapping[str, Loss], context: FitContext) -> None:
        images = KnownImages.numbered(train.image_ids, self.config.order, context.seed)
        needed = len(str(len(images) - 1))
        num_digits = self.config.num_digits or needed + 1
        if num_digits < needed:
            raise UsageError(
                f"identifier.num_digits is {num_digits}, but {len(images):,} images need {needed}; set it to at least "
                f"{needed}, or to null"
            )
        self._set(images, num_digits)

    def _set(self, images: KnownImages, num_digits: int) -> None:
        self.images = images
        self.vokens = Vokens((10,) * num_digits, shared=True)

    def identify(self, corpus: Corpus) -> Identifiers:
        numbers = known.fitted(self.images, "numeric").numbers(corpus)
        num_digits = len(self.vokens.sizes)
        if len(too_large := (numbers >= 10**num_digits).nonzero()):
            row = int(too_large[0])
            raise GenretError(
                f"numbers of {num_digits} digits have run out: image '{corpus.image_ids[row]}' would be number "
                f"{int(numbers[row])}; train again with --set identifier.num_digits={len(str(int(numbers[row])))}"
            )
        return Identifiers(torch.arange(len(numbers)), codes=digits(numbers, num_digits))

    def save(self, folder: Path) -> None:
        known.fitted(self.images, "numeric").save(folder)
        stored.save(folder, "digits", {}, {"num_digits": len(self.vokens.sizes)})

    def load(self, folder: Path) -> None:
        with stored.reading(folder, "identifier model"):
            num_digits = stored.load(folder, "digits").facts["num_digits"]
            if not isinstance(num_digits, int) or not 1 <= num_digits <= MOST_DIGITS:
                raise ValueError("digits.json names no number of digits")
        self._set(KnownImages.load(folder), num_digits)


def digits(numbers: Tensor, count: int) -> Tensor:
    """numbers (N,) → (N, count), the most significant digit first."""
    powers = 10 ** torch.arange(count - 1, -1, -1, dtype=torch.int64)
    return numbers[:, None] // powers % 10
