"""The scheme `fsq`: vokens without a codebook. Every code is a point of a small fixed grid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from genret import GenretError, Identifier, Loss
from genret.api import Corpus, FitContext, Identifiers, LoopOptions, TokenizerBatch, Vokens
from genret.toolbox import saving as stored
from genret.toolbox.codes.collisions import CollisionOptions, Collisions, Distances
from genret.toolbox.codes.rows import CHUNK, kmeans_rows, with_random_rows
from genret.toolbox.codes.training import Quantized, train_autoencoder
from genret_fsq.network import FSQNetwork

MOST_CODES = 65536


class FSQTraining(LoopOptions):
    epochs: int = Field(20, ge=0)
    """Epochs over the training images; 0 keeps the principal components."""
    batch_size: int = Field(512, ge=1)
    """Images per step."""
    bf16: bool | Literal["auto"] = False
    """Off: bfloat16 is too coarse for rounding."""


class FSQIdentifier(Identifier):
    """M codes, each a point of a grid: dimensions of the image's vector are bounded and rounded (arXiv 2309.15505).

    There is no codebook that could collapse. Codes are independent: each quantizes other dimensions; before training,
    the first code has the largest principal components.
    """

    uses_tokenizer_losses = True
    has_teacher = True
    has_code_vectors = True

    class Config(CollisionOptions):
        levels: list[Annotated[int, Field(ge=3)]] = Field([8, 6, 5], min_length=1)
        """Steps of each dimension of the grid; their product is the number of codes per level."""
        num_levels: int = Field(4, ge=1, le=32)
        """Vokens per image."""
        hidden_width: int = Field(512, ge=1)
        """Hidden width of the decoder."""
        train: FSQTraining = FSQTraining()
        """How the linear map and the decoder are trained."""

        @field_validator("levels")
        @classmethod
        def _few_enough(cls, levels: list[int]) -> list[int]:
            if math.prod(levels) > MOST_CODES:
                raise ValueError(f"their product must be at most {MOST_CODES:,}, the codes of a symbol")
            return levels

    def __init__(self, config: Any = None, **resources: Any):
        super().__init__(config, **resources)
        c = self.config
        self.collisions = Collisions(c, (math.prod(c.levels),) * c.num_levels)
        self.network: FSQNetwork | None = None

    @property
    def vokens(self) -> Vokens:  # type: ignore[override]
        return self.collisions.vokens

    @property
    def avoids_collisions(self) -> bool:
        return self.collisions.avoided

    # ------------------------------------------------------------------------------------------------ fitting
    def fit(self, train: Corpus, losses: Mapping[str, Loss], context: FitContext) -> None:
        torch.manual_seed(context.seed)
        network = self._network(train.features.shape[1]).to(context.device)
        network.init_pca(kmeans_rows(train, False, context))

        def quantize(features: Tensor, assignments: bool) -> Quantized:
            out = network(features)
            # FSQ has no partial sums; after m codes the first m are rounded and the rest is unchanged
            rounded = torch.ones(self.config.num_levels, self.config.num_levels, device=features.device).tril().bool()
            rounded = rounded.repeat_interleave(network.group, dim=1)
            partial = torch.where(rounded, out.quantized[:, None], out.bounded[:, None])
            distances = network.squared_distances(out.bounded).unbind(1) if assignments else ()
            batch = TokenizerBatch(
                features, None, out.bounded, partial, out.reconstruction, [-level for level in distances]
            )
            return Quantized(batch, features.new_zeros(()))

        if losses:
            train_autoencoder(network, quantize, train, losses, self.config.train, context)
        self.network = network.eval()
        bounded = self._bounded(train.features)
        self.collisions.fit(train.image_ids, self._nearest(train.features), self._distances(bounded))

    def _network(self, width: int) -> FSQNetwork:
        c = self.config
        if (dims := len(c.levels) * c.num_levels) > width:
            raise GenretError(
                f"fsq rounds {dims} dimensions (identifier.levels × identifier.num_levels), but vectors have {width}; "
                "use fewer"
            )
        return FSQNetwork(width, tuple(c.levels), c.num_levels, c.hidden_width)

    # ------------------------------------------------------------------------------------------------ using
    def identify(self, corpus: Corpus) -> Identifiers:
        distances = self._distances(self._bounded(corpus.features))
        codes = self.collisions.settle(corpus, self._nearest(corpus.features), distances)
        return Identifiers(torch.arange(len(codes)), codes=codes)

    def _nearest(self, features: Tensor) -> Tensor:
        network = self._fitted()
        with torch.no_grad():
            parts = features.split(CHUNK)
            return torch.cat([network.nearest(network.latent(part.to(self._device))).cpu() for part in parts])

    def _bounded(self, features: Tensor) -> Tensor:
        network = self._fitted()
        with torch.no_grad():
            parts = features.split(CHUNK)
            return torch.cat([network.bounded(network.latent(part.to(self._device))).cpu() for part in parts])

    def _distances(self, bounded: Tensor) -> Distances:
        """Codes are independent, so the best combinations extend the best prefixes."""
        network = self._fitted()

        @torch.no_grad()
        def nearest(rows: Tensor, count: int) -> Tensor:
            return torch.cat([best(part, count) for part in rows.split(max(1, CHUNK // count))])

        def best(rows: Tensor, count: int) -> Tensor:
            costs = network.squared_distances(bounded[rows].to(self._device)).cpu()
            total, codes = torch.zeros(len(rows), 1), torch.zeros(len(rows), 1, 0, dtype=torch.int64)
            place = torch.arange(len(rows))[:, None]
            for cost in costs.unbind(1):
                every = (total[:, :, None] + cost[:, None]).flatten(1)
                total, kept = every.topk(min(count, every.shape[1]), largest=False, sorted=True)
                parent, code = kept // cost.shape[1], kept % cost.shape[1]
                codes = torch.cat([codes[place, parent], code[..., None]], -1)
            return codes

        @torch.no_grad()
        def last_level(rows: Tensor, codes: Tensor) -> Tensor:
            return network.squared_distances(bounded[rows].to(self._device))[:, -1].cpu()

        return Distances(nearest, last_level)

    def reconstruct(self, codes: Tensor) -> Tensor:
        network = self._fitted()
        codes = codes[:, : self.config.num_levels]
        with torch.no_grad():
            parts = [network.decode_points(network.points(part.to(self._device))) for part in codes.split(CHUNK)]
            return torch.cat(parts).cpu()

    def code_probabilities(self, features: Tensor, codes: Tensor, temperature: float) -> list[Tensor]:
        """softmax_k −‖u_m − g_k‖² / 2τ over the grid points, independent of earlier codes."""
        network = self._fitted()
        with torch.no_grad():
            bounded = network.bounded(network.latent(features.to(self._device)))
            levels = [(-0.5 * far / temperature).softmax(-1) for far in network.squared_distances(bounded).unbind(1)]
        if len(self.vokens.sizes) > self.config.num_levels:
            levels.append(self.collisions.extra_probabilities().to(bounded.device).expand(len(features), -1))
        return levels

    def code_vectors(self) -> Tensor:
        """(S, M·d): each code's grid point, in the dimensions of its level."""
        grid = self._fitted().grid.cpu()
        return with_random_rows(torch.block_diag(*[grid] * self.config.num_levels), self.vokens.num_symbols)

    @property
    def _device(self) -> torch.device:
        return self._fitted().latent.weight.device

    def _fitted(self) -> FSQNetwork:
        if self.network is None:
            raise GenretError("this fsq identifier is not fitted yet; train a run, or load one")
        return self.network

    # ------------------------------------------------------------------------------------------------ disk
    def save(self, folder: Path) -> None:
        network = self._fitted()
        tensors, facts = self.collisions.state()
        stored.save(folder, "fsq", tensors | network.state_dict(), facts | {"width": network.latent.in_features})

    def load(self, folder: Path) -> None:
        with stored.reading(folder, "identifier model"):
            tensors, facts = stored.load(folder, "fsq")
            self.collisions.restore(tensors, facts)
            network = self._network(int(facts["width"]))
            network.load_state_dict(tensors)
            self.network = network.eval()
