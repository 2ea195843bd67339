"""Codes of two spaces: first those of the space that the language model reads, then those of the one that is compared.

For vectors (z, z′) of the encoder `two-space`. A code's vector is zero in the other space, so all codes of an image add
up to its vector, and each space is quantized as if it were alone. Guidance compares the query with the sum of the
compared codes; the first ones say nothing to it.
"""

from __future__ import annotations

from typing import Any, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from genret.api import Additive
from genret.components.identifiers.residual import ResidualCoder
from genret.components.identifiers.residual_kmeans import ResidualKMeansIdentifier
from genret.components.quantize.rq import ResidualQuantizer


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
        self.coder = ResidualCoder(c.reader_levels + c.num_levels, c.codebook_size, False, c.encode_beam, c)

    def _quantizer(self, width: int) -> ResidualQuantizer:
        return _TwoQuantizers(width, self.config.reader_levels, self.config.num_levels, self.config.codebook_size)

    def additive(self, features: Tensor) -> Additive:
        """Of the compared space alone. A query's vector is there twice as long, squared, as an image's."""
        target, books = super().additive(features)
        half = target.shape[1] // 2
        return Additive(F.normalize(target[:, :half], dim=1) * 0.5**0.5, [book[:, :half] for book in books])


class _TwoQuantizers(ResidualQuantizer):
    """Quantizes either half of its vectors alone, which takes half the time. `codebooks` are 0 in the other half."""

    def __init__(self, width: int, reader_levels: int, num_levels: int, codebook_size: int):
        super().__init__(width, reader_levels + num_levels, codebook_size)
        half = width // 2
        self.read = ResidualQuantizer(half, reader_levels, codebook_size)
        self.compared = ResidualQuantizer(half, num_levels, codebook_size)
        self.halves = (
            (self.read, slice(reader_levels), slice(half, None)),
            (self.compared, slice(reader_levels, None), slice(half)),
        )
        """Each with its levels and columns"""

    def init_kmeans(self, x: Tensor, iters: int, generator: torch.Generator) -> None:
        self.codebooks.zero_()
        for alone, levels, columns in self.halves:
            # the same clusters as if there were no other half
            alone.init_kmeans(x[:, columns], iters, torch.Generator().manual_seed(generator.initial_seed()))
            self.codebooks[levels, :, columns] = alone.codebooks

    @torch.no_grad()
    def encode(self, z: Tensor, beam: int = 1) -> Tensor:
        codes = []
        for alone, levels, columns in self.halves:
            alone.codebooks = self.codebooks[levels, :, columns]
            codes.append(alone.encode(z[:, columns], beam))
        return torch.cat(codes, dim=1)
