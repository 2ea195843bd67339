"""Residual quantization by k-means alone: no network, no gradient, no captions needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from genret.api import Additive, Corpus, FitContext, Identifier, Identifiers, Loss, Vokens
from genret.components.identifiers.residual import ResidualCoder
from genret.components.quantize.rq import ResidualQuantizer
from genret.errors import GenretError
from genret.toolbox import saving as stored
from genret.toolbox.codes.collisions import CollisionOptions
from genret.toolbox.codes.rows import CHUNK, kmeans_rows


class ResidualKMeansIdentifier(Identifier):
    """M codes from coarse to fine: each level clusters the residuals of the previous levels.

    This is the initialization of `rq`; as good as `rq` if image and caption vectors already share a space.
    """

    has_teacher = True
    has_code_vectors = True
    is_additive = True

    class Config(CollisionOptions):
        codebook_size: int = Field(256, ge=2, le=65536)
        """Codes per level: clusters of each k-means."""
        num_levels: int = Field(4, ge=1, le=32)
        """Vokens per image."""
        shared_codebook: bool = False
        """One codebook for all levels, or one per level."""
        kmeans_iters: int = Field(20, ge=0)
        """Iterations of each k-means."""
        fit_texts: bool = False
        """Whether to cluster caption vectors together with the images', so that codes separate captions, too."""
        encode_beam: int = Field(1, ge=1)
        """Partial encodings kept while quantizing; 1 is greedy."""

    def __init__(self, config: Any = None, **resources: Any):
        super().__init__(config, **resources)
        c = self.config
        self.coder = ResidualCoder(c.num_levels, c.codebook_size, c.shared_codebook, c.encode_beam, c)
        self.quantizer: ResidualQuantizer | None = None

    @property
    def vokens(self) -> Vokens:  # type: ignore[override]
        return self.coder.vokens

    @property
    def avoids_collisions(self) -> bool:
        return self.coder.collisions.avoided

    def fit(self, train: Corpus, losses: Mapping[str, Loss], context: FitContext) -> None:
        torch.manual_seed(context.seed)
        quantizer = self._quantizer(train.features.shape[1]).to(context.device)
        rows = kmeans_rows(train, self.config.fit_texts, context)
        quantizer.init_kmeans(rows, self.config.kmeans_iters, torch.Generator().manual_seed(context.seed))
        self.quantizer = quantizer.eval()
        self.coder.settle_fit(quantizer, train.image_ids, train.features)

    def _quantizer(self, width: int) -> ResidualQuantizer:
        c = self.config
        return ResidualQuantizer(width, c.num_levels, c.codebook_size, shared=c.shared_codebook)

    def identify(self, corpus: Corpus) -> Identifiers:
        codes = self.coder.identify(self._fitted(), corpus, corpus.features)
        return Identifiers(torch.arange(len(corpus.features)), codes=codes)

    def reconstruct(self, codes: Tensor) -> Tensor:
        parts = [self.coder.decode(self._fitted(), part).cpu() for part in codes.split(CHUNK)]
        return F.normalize(torch.cat(parts), dim=-1)

    def code_probabilities(self, features: Tensor, codes: Tensor, temperature: float) -> list[Tensor]:
        quantizer = self._fitted()
        features = features.to(quantizer.codebooks.device)
        return self.coder.code_probabilities(quantizer, features, codes, temperature)

    def additive(self, features: Tensor) -> Additive:
        quantizer = self._fitted()
        return self.coder.additive(quantizer, features.to(quantizer.codebooks.device))

    def code_vectors(self) -> Tensor:
        return self.coder.code_vectors(self._fitted())

    def _fitted(self) -> ResidualQuantizer:
        if self.quantizer is None:
            raise GenretError("this residual-kmeans identifier is not fitted yet; train a run, or load one")
        return self.quantizer

    def save(self, folder: Path) -> None:
        tensors, facts = self.coder.collisions.state()
        stored.save(folder, "quantizer", tensors | {"codebooks": self._fitted().codebooks}, facts)

    def load(self, folder: Path) -> None:
        with stored.reading(folder, "identifier model"):
            tensors, facts = stored.load(folder, "quantizer")
            self.coder.collisions.restore(tensors, facts)
            books = tensors["codebooks"]
            quantizer = self._quantizer(books.shape[-1])
            quantizer.load_state_dict({"codebooks": books}, strict=False)  # usage counts are not stored
            self.quantizer = quantizer.eval()
