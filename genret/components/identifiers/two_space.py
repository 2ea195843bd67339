"""Codes of two spaces: first those of the space that the language model reads, then those of the one that is compared.

For vectors (z, z′) of the encoder `two-space`. A code's vector is zero in the other space, so all codes of an image add
up to its vector, and each space is quantized as if it were alone. Guidance compares the query with the sum of the
compared codes; the first ones say nothing to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from genret.api import Additive, Corpus, FitContext, Loss
from genret.components.identifiers.residual import ResidualCoder
from genret.components.identifiers.residual_kmeans import ResidualKMeansIdentifier
from genret.components.quantize.rq import ResidualQuantizer
from genret.toolbox.codes.rows import kmeans_rows


class TwoSpaceIdentifier(ResidualKMeansIdentifier):
    """Residual k-means of z′, to be written (`train.written_levels`), before that of z, for guidance."""

    num_spaces = 2

    class Config(ResidualKMeansIdentifier.Config):
        num_levels: int = Field(32, ge=1, le=32)
        """Vokens of the compared space."""
        reader_levels: int = Field(16, ge=1, le=32)
        """Vokens of the space that the language model reads, which come before them."""

        @model_validator(mode="after")
        def _has_two(self) -> Self:
            if self.shared_codebook:
                raise ValueError("codes of two spaces cannot share a codebook; set `shared_codebook` to false")
            return self

    def __init__(self, config: Any = None, **resources: Any):
        super().__init__(config, **resources)
        c = self.config
        self.coder = ResidualCoder(self._total, c.codebook_size, False, c.encode_beam, c)

    @property
    def _total(self) -> int:
        return int(self.config.reader_levels + self.config.num_levels)

    def fit(self, train: Corpus, losses: Mapping[str, Loss], context: FitContext) -> None:
        c = self.config
        torch.manual_seed(context.seed)
        rows = kmeans_rows(train, c.fit_texts, context)
        half = rows.shape[1] // 2
        quantizer = self._quantizer(2 * half).to(context.device)
        books = torch.zeros_like(quantizer.codebooks)
        read, compared = slice(half, None), slice(half)
        for levels, columns in ((slice(c.reader_levels), read), (slice(c.reader_levels, None), compared)):
            alone = ResidualQuantizer(half, len(books[levels]), c.codebook_size).to(context.device)
            alone.init_kmeans(rows[:, columns], c.kmeans_iters, torch.Generator().manual_seed(context.seed))
            books[levels, :, columns] = alone.codebooks
        quantizer.codebooks.copy_(books)
        self.quantizer = quantizer.eval()
        self.coder.settle_fit(quantizer, train.image_ids, train.features)

    def _quantizer(self, width: int) -> ResidualQuantizer:
        return ResidualQuantizer(width, self._total, self.config.codebook_size)

    def additive(self, features: Tensor) -> Additive:
        """Of the compared space alone. A query's vector is there twice as long, squared, as an image's."""
        found = super().additive(features)
        read = self.config.reader_levels
        books = [torch.zeros_like(book) for book in found.books[:read]] + list(found.books[read:])
        target = found.target.clone()
        half = target.shape[1] // 2
        target[:, :half] = F.normalize(target[:, :half], dim=1) * 0.5**0.5
        target[:, half:] = 0
        return Additive(target, books)
