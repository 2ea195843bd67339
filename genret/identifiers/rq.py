"""Aligned residual-quantized vokens (paper 3.1), the identifiers of AVG; without the align loss, those of IRGen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from genret import interfaces, loop
from genret.errors import GenretError, one_line
from genret.identifiers.autoencoder import Tokenized, TokenizerNetwork
from genret.interfaces import (
    Corpus,
    FitContext,
    Identifier,
    Identifiers,
    LoopOptions,
    Loss,
    TokenizerBatch,
    Vokens,
)
from genret.quantize.rq import ResidualQuantizer

CHUNK = 8192
"""Rows quantized at once, so that memory does not grow with the corpus."""


KMEANS_ROWS = 1 << 16
"""Most vectors that k-means looks at."""


class RQTraining(LoopOptions):
    """As the paper trains it, but for the length."""

    epochs: int = Field(20, ge=0)
    """Passes over the training images; 0 keeps plain residual k-means."""
    batch_size: int = Field(2048, ge=1)
    """Images per step."""
    lr: float = Field(1e-4, gt=0)
    """Peak learning rate (AdamW)."""
    bf16: bool | Literal["auto"] = False
    """Off: nearest codes are too close to call in bfloat16."""


class RQIdentifier(Identifier):
    """M codes from coarse to fine; each level quantizes what the levels before left over."""

    uses_tokenizer_losses = True
    has_teacher = True
    has_code_vectors = True

    class Config(interfaces.Config):
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
        """How codes move: as moving averages of what is assigned to them, or by gradient."""
        ema_decay: float = Field(0.99, gt=0, lt=1)
        """Decay of the moving averages."""
        dead_code_threshold: float = Field(0.05, ge=0, lt=1)
        """Codes chosen less often than this share of the average are revived at a residual of the batch; 0: never."""
        kmeans_iters: int = Field(10, ge=0)
        """Iterations of the k-means that initialises each level."""
        fit_texts: bool = False
        """Whether caption vectors, too, are quantized in training, so that codes also part what words part."""
        encode_beam: int = Field(1, ge=1)
        """Partial encodings kept while quantizing; 1 is greedy."""
        train: RQTraining = RQTraining()
        """How the tokenizer is trained."""

    def __init__(self, config: Any = None, **lent: Any):
        super().__init__(config, **lent)
        c = self.config
        self.vokens = Vokens((c.codebook_size,) * c.num_levels, c.shared_codebook)
        self.network: TokenizerNetwork | None = None

    # ------------------------------------------------------------------------------------------------ fitting
    def fit(self, train: Corpus, losses: Mapping[str, Loss], context: FitContext) -> None:
        torch.manual_seed(context.seed)
        network = self._network(train.features.shape[1]).to(context.device)
        self.network = network
        examples = self._examples(train, context.device)
        generator = torch.Generator().manual_seed(context.seed)
        with torch.no_grad():
            latent = torch.cat([network.latent(part) for part in examples.split(CHUNK)])
            network.quantizer.init_kmeans(latent, self.config.kmeans_iters, generator)
        captions = _CaptionVectors(train, context.device) if any(loss.needs_text for loss in losses.values()) else None
        images = train.features.to(context.device)
        views = None if train.views is None else train.views.to(context.device)

        def step(indices: Tensor, epoch: int) -> dict[str, Tensor]:
            features = images[indices]
            if views is not None:  # any view of the picture, with a caption of the picture
                view = torch.randint(views.shape[1], (len(indices),))
                features = views[indices, view]
            text = captions.sample(indices) if captions is not None else None
            if self.config.fit_texts and text is not None:
                features, text = torch.cat([features, text]), torch.cat([text, text])
            return _weighted(network(features), features, text, losses)

        loop.run(network, step, len(train.features), self.config.train, context, name="tokenizer")

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

    def _examples(self, train: Corpus, device: torch.device) -> Tensor:
        """What k-means initialises the codes from, (n, D): a sample, where there is more than enough."""
        parts = [train.features if train.views is None else train.views.flatten(0, 1)]
        if self.config.fit_texts and train.text_features is not None:
            parts.append(train.text_features)
        examples = torch.cat(parts)
        if len(examples) > KMEANS_ROWS:
            examples = examples[torch.randperm(len(examples))[:KMEANS_ROWS]]
        return examples.to(device)

    # ------------------------------------------------------------------------------------------------ using
    def identify(self, corpus: Corpus) -> Identifiers:
        network = self._fitted()
        with torch.no_grad():
            parts = corpus.features.split(CHUNK)
            codes = [network.encode(part.to(self._device), self.config.encode_beam).cpu() for part in parts]
        return Identifiers(torch.arange(len(corpus.features)), codes=torch.cat(codes))

    def reconstruct(self, codes: Tensor) -> Tensor:
        network = self._fitted()
        with torch.no_grad():
            return torch.cat([network.decode(part.to(self._device)).cpu() for part in codes.split(CHUNK)])

    def code_probabilities(self, features: Tensor, codes: Tensor, temperature: float) -> list[Tensor]:
        """softmax_k −‖r_m − e_k‖² / 2τ, with the residual r_m that `codes` leave at level m."""
        network = self._fitted()
        with torch.no_grad():
            residual = network.latent(features.to(self._device))
            levels = []
            for level in range(self.config.num_levels):
                book = network.quantizer.book(level)
                nearness = residual @ book.T - 0.5 * book.square().sum(1)  # −½‖r − e‖² but for ‖r‖², alike for all k
                levels.append((nearness / temperature).softmax(-1))
                residual = residual - book[codes[:, level].to(self._device)]
        return levels

    def code_vectors(self) -> Tensor:
        return self._fitted().quantizer.code_vectors().detach().cpu()

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
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {key: value.detach().cpu().clone().contiguous() for key, value in network.state_dict().items()}
        save_file(tensors, folder / "tokenizer.safetensors")
        (folder / "tokenizer.json").write_text(json.dumps({"width": network.latent.in_features}))

    def load(self, folder: Path) -> None:
        try:
            width = json.loads((folder / "tokenizer.json").read_text())["width"]
            network = self._network(int(width))
            network.load_state_dict(load_file(folder / "tokenizer.safetensors"))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise GenretError(
                f"{folder} holds no usable identifier model ({one_line(error)}); "
                "make it anew with: genret train --run DIR --resume"
            ) from error
        self.network = network.eval()


class _CaptionVectors:
    """Draws one caption vector for each image."""

    def __init__(self, corpus: Corpus, device: torch.device):
        assert corpus.text_features is not None and corpus.owners is not None, "the align loss needs captions"
        order = torch.argsort(corpus.owners, stable=True)
        self.counts = torch.bincount(corpus.owners, minlength=len(corpus.features))
        self.starts = self.counts.cumsum(0) - self.counts
        if not bool((self.counts > 0).all()):
            bare = corpus.image_ids[int((self.counts == 0).nonzero()[0])]
            raise GenretError(f"the align loss needs a caption for every training image; '{bare}' has none")
        self.vectors = corpus.text_features[order].to(device)

    def sample(self, images: Tensor) -> Tensor:
        """(B,) → (B, D)"""
        pick = (torch.rand(len(images)) * self.counts[images]).long()
        return self.vectors[self.starts[images] + pick]


def _weighted(out: Tokenized, image: Tensor, text: Tensor | None, losses: Mapping[str, Loss]) -> dict[str, Tensor]:
    """L_tokenizer (Eqn. 6) with its terms."""
    batch = TokenizerBatch(image, text, out.latent, out.partial, out.reconstruction)
    terms = {name: loss(batch) for name, loss in losses.items()}
    total = sum((losses[name].config.weight * term for name, term in terms.items()), out.codebook_loss)
    return {"loss": total, **terms}
