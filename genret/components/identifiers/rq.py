"""Aligned residual-quantized vokens (paper 3.1), the identifiers of AVG; without the align loss, those of IRGen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from genret.api import Additive, Corpus, FitContext, Identifier, Identifiers, LoopOptions, Loss, TokenizerBatch, Vokens
from genret.components.identifiers.autoencoder import TokenizerNetwork
from genret.components.identifiers.residual import ResidualCoder
from genret.components.quantize.rq import ResidualQuantizer
from genret.errors import GenretError
from genret.toolbox import saving as stored
from genret.toolbox.codes.collisions import CollisionOptions
from genret.toolbox.codes.rows import CHUNK, kmeans_rows
from genret.toolbox.codes.training import Quantized, train_autoencoder


class RQTraining(LoopOptions):
    """The paper's training, except for its length."""

    epochs: int = Field(20, ge=0)
    """Epochs over the training images; 0 keeps plain residual k-means."""
    batch_size: int = Field(2048, ge=1)
    """Images per step."""
    lr: float = Field(1e-4, gt=0)
    """Peak learning rate (AdamW)."""
    bf16: bool | Literal["auto"] = False
    """Off: bfloat16 is too coarse to find the nearest code."""


class RQIdentifier(Identifier):
    """M codes from coarse to fine; each level quantizes the residual of the previous levels."""

    uses_tokenizer_losses = True
    has_teacher = True
    has_code_vectors = True
    is_additive = True

    class Config(CollisionOptions):
        codebook_size: int = Field(256, ge=2, le=65536)
        """Codes per level (the paper's N)."""
        num_levels: int = Field(4, ge=1, le=32)
        """Vokens per image (the paper's M)."""
        shared_codebook: bool = False
        """One codebook for all levels, as Eqn. 2 has it, or one per level."""
        latent_width: int | None = Field(None, ge=2)
        """Width of the quantized space; null: as wide as the features."""
        hidden_width: int = Field(512, ge=1)
        """Hidden width of the decoder."""
        codebooks: Literal["ema", "gradient"] = "ema"
        """How codes learn: as moving averages of the residuals assigned to them, or by gradient."""
        ema_decay: float = Field(0.99, gt=0, lt=1)
        """Decay of the moving averages."""
        dead_code_threshold: float = Field(0.05, ge=0, lt=1)
        """Codes used less often than this share of the average are reset to a residual of the batch; 0: never."""
        kmeans_iters: int = Field(10, ge=0)
        """Iterations of the k-means that initializes each level."""
        fit_texts: bool = False
        """Whether caption vectors are quantized in training too, so that codes also separate what captions separate."""
        encode_beam: int = Field(1, ge=1)
        """Partial encodings kept while quantizing; 1 is greedy."""
        train: RQTraining = RQTraining()
        """How the tokenizer is trained."""

    def __init__(self, config: Any = None, **resources: Any):
        super().__init__(config, **resources)
        c = self.config
        self.coder = ResidualCoder(c.num_levels, c.codebook_size, c.shared_codebook, c.encode_beam, c)
        self.network: TokenizerNetwork | None = None

    @property
    def vokens(self) -> Vokens:  # type: ignore[override]
        return self.coder.vokens

    @property
    def avoids_collisions(self) -> bool:
        return self.coder.collisions.avoided

    # ------------------------------------------------------------------------------------------------ fitting
    def fit(self, train: Corpus, losses: Mapping[str, Loss], context: FitContext) -> None:
        torch.manual_seed(context.seed)
        network = self._network(train.features.shape[1]).to(context.device)
        self.network = network
        examples = kmeans_rows(train, self.config.fit_texts, context)
        generator = torch.Generator().manual_seed(context.seed)
        with torch.no_grad():
            latent = torch.cat([network.latent(part) for part in examples.split(CHUNK)])
            network.quantizer.init_kmeans(latent, self.config.kmeans_iters, generator)

        def quantize(features: Tensor, assignments: bool) -> Quantized:
            out = network(features)
            batch = TokenizerBatch(features, None, out.latent, out.partial, out.reconstruction)
            if assignments:
                batch = batch._replace(assignments=network.quantizer.assignments(out.latent, out.partial))
            return Quantized(batch, out.codebook_loss)

        train_autoencoder(network, quantize, train, losses, self.config.train, context, self.config.fit_texts)
        self.coder.settle_fit(network.quantizer, train.image_ids, self._latent(train.features))

    def _network(self, width: int) -> TokenizerNetwork:
        c = self.config
        latent_width = c.latent_width or width
        quantizer = ResidualQuantizer(
            latent_width,
            c.num_levels,
            c.codebook_size,
            shared=c.shared_codebook,
            learn=c.codebooks,
            ema_decay=c.ema_decay,
            dead_code_threshold=c.dead_code_threshold,
        )
        return TokenizerNetwork(width, latent_width, c.hidden_width, quantizer)

    # ------------------------------------------------------------------------------------------------ using
    def identify(self, corpus: Corpus) -> Identifiers:
        codes = self.coder.identify(self._fitted().quantizer, corpus, self._latent(corpus.features))
        return Identifiers(torch.arange(len(corpus.features)), codes=codes)

    def _latent(self, features: Tensor) -> Tensor:
        """(N, D) → (N, D_code) on the CPU"""
        network = self._fitted()
        with torch.no_grad():
            return torch.cat([network.latent(part.to(self._device)).cpu() for part in features.split(CHUNK)])

    def reconstruct(self, codes: Tensor) -> Tensor:
        network = self._fitted()
        with torch.no_grad():
            parts = codes.split(CHUNK)
            return torch.cat(
                [network.decode_latent(self.coder.decode(network.quantizer, part)).cpu() for part in parts]
            )

    def code_probabilities(self, features: Tensor, codes: Tensor, temperature: float) -> list[Tensor]:
        network = self._fitted()
        with torch.no_grad():
            latent = network.latent(features.to(self._device))
            return self.coder.code_probabilities(network.quantizer, latent, codes, temperature)

    def additive(self, features: Tensor) -> Additive:
        network = self._fitted()
        with torch.no_grad():
            return self.coder.additive(network.quantizer, network.latent(features.to(self._device)))

    def code_vectors(self) -> Tensor:
        return self.coder.code_vectors(self._fitted().quantizer)

    @property
    def _device(self) -> torch.device:
        return self._fitted().latent.weight.device

    def _fitted(self) -> TokenizerNetwork:
        if self.network is None:
            raise GenretError("this rq identifier is not fitted yet; train a run, or load one")
        return self.network

    # ------------------------------------------------------------------------------------------------ disk
    def save(self, folder: Path) -> None:
        network = self._fitted()
        tensors, facts = self.coder.collisions.state()
        facts["width"] = network.latent.in_features
        stored.save(folder, "tokenizer", tensors | network.state_dict(), facts)

    def load(self, folder: Path) -> None:
        with stored.reading(folder, "identifier model"):
            tensors, facts = stored.load(folder, "tokenizer")
            self.coder.collisions.restore(tensors, facts)
            network = self._network(int(facts["width"]))
            network.load_state_dict(tensors)
            self.network = network.eval()
