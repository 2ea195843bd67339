"""Shared by schemes over a residual quantizer: collision handling, soft assignment, code vectors.

It works on latent vectors, which the scheme computes.

B vectors   D_code latent width   M levels   K codes   S symbols
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from genret.api import Additive, Corpus, Vokens
from genret.components.quantize.kmeans import distances
from genret.components.quantize.rq import ResidualQuantizer
from genret.toolbox.codes.collisions import CollisionOptions, Collisions, Distances
from genret.toolbox.codes.rows import CHUNK, with_random_rows


class ResidualCoder:
    """Encodes latent vectors with a residual quantizer and resolves collisions."""

    def __init__(self, num_levels: int, codebook_size: int, shared: bool, beam: int, options: CollisionOptions):
        self.num_levels, self.beam = num_levels, beam
        self.collisions = Collisions(options, (codebook_size,) * num_levels, shared)

    @property
    def vokens(self) -> Vokens:
        return self.collisions.vokens

    def settle_fit(self, quantizer: ResidualQuantizer, image_ids: Sequence[str], latent: Tensor) -> None:
        """latent (N, D_code) of the images of the fit."""
        if self.collisions.avoided:
            self.collisions.fit(image_ids, self.encode(quantizer, latent), self._distances(quantizer, latent))

    def identify(self, quantizer: ResidualQuantizer, corpus: Corpus, latent: Tensor) -> Tensor:
        """(N, D_code) → final codes (N, M), or (N, M + 1) with the extra symbol."""
        return self.collisions.settle(corpus, self.encode(quantizer, latent), self._distances(quantizer, latent))

    def encode(self, quantizer: ResidualQuantizer, latent: Tensor) -> Tensor:
        """(N, D_code) → the nearest codes (N, M), on the CPU."""
        device = quantizer.codebooks.device
        return torch.cat([quantizer.encode(part.to(device), self.beam).cpu() for part in latent.split(CHUNK)])

    def decode(self, quantizer: ResidualQuantizer, codes: Tensor) -> Tensor:
        """(R, M or M + 1) → ẑ (R, D_code), on the quantizer's device; an extra symbol is ignored."""
        return quantizer.decode(codes[:, : self.num_levels].to(quantizer.codebooks.device))

    def _distances(self, quantizer: ResidualQuantizer, latent: Tensor) -> Distances:
        device = quantizer.codebooks.device

        def nearest(rows: Tensor, count: int) -> Tensor:
            return quantizer.candidates(latent[rows].to(device), count).cpu()

        def last_level(rows: Tensor, codes: Tensor) -> Tensor:
            last = quantizer.book(self.num_levels - 1)
            codes = codes.to(device)
            residual = latent[rows].to(device) - quantizer.decode(codes) + last[codes[:, -1]]
            return distances(residual, last).cpu()

        return Distances(nearest, last_level)

    def code_probabilities(
        self, quantizer: ResidualQuantizer, latent: Tensor, codes: Tensor, temperature: float
    ) -> list[Tensor]:
        """softmax_k −‖r_m − e_k‖² / 2τ, with the residual r_m that `codes` leave at level m, for the levels that
        these have. For the extra symbol: its frequency."""
        residual, levels = latent, []
        for level in range(min(self.num_levels, codes.shape[1])):
            book = quantizer.book(level)
            nearness = -0.5 * distances(residual, book)  # −½‖r − e‖² without ‖r‖², which is the same for all k
            levels.append((nearness / temperature).softmax(-1))
            residual = residual - book[codes[:, level].to(latent.device)]
        if codes.shape[1] > self.num_levels:
            levels.append(self.collisions.extra_probabilities().to(latent.device).expand(len(latent), -1))
        return levels

    def additive(self, quantizer: ResidualQuantizer, latent: Tensor) -> Additive:
        """Extra symbols have no contribution."""
        return Additive(latent, [quantizer.book(level) for level in range(self.num_levels)])

    def code_vectors(self, quantizer: ResidualQuantizer) -> Tensor:
        """(S, D_code) on the CPU. Extra symbols have no learned vector: they get random vectors of similar norm."""
        return with_random_rows(quantizer.code_vectors().cpu(), self.vokens.num_symbols)
