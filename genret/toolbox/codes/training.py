"""Training of a tokenizer network (paper 3.1, Eqn. 6): images and captions in, losses out.

Independent of how the network quantizes.

B examples in a batch   b of them with a caption   D feature width
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from genret.api import Corpus, FitContext, LoopOptions, Loss, TokenizerBatch
from genret.api.border import loss_term
from genret.errors import GenretError
from genret.kit import loop


class Quantized(NamedTuple):
    """A network's output for a batch."""

    batch: TokenizerBatch
    """without texts"""
    own_loss: Tensor
    """() the network's own loss, such as the codebook term of Eqn. 4"""


def train_autoencoder(
    network: nn.Module,
    quantize: Callable[[Tensor, bool], Quantized],
    train: Corpus,
    losses: Mapping[str, Loss],
    options: LoopOptions,
    context: FitContext,
    fit_texts: bool = False,
) -> None:
    """Trains `network` in place on random views of each image, with random captions of each.

    `quantize(features (B, D), needs_assignments)` runs it. `fit_texts`: caption vectors are quantized, too.
    """
    captions = CaptionVectors(train, context.device) if any(loss.needs_text for loss in losses.values()) else None
    assignments = any(loss.needs_assignments for loss in losses.values())
    images = train.features.to(context.device)
    views = None if train.views is None else train.views.to(context.device)

    def step(indices: Tensor, epoch: int, number: int) -> dict[str, Tensor]:
        features = images[indices]
        if views is not None:
            view = torch.randint(views.shape[1], (len(indices),))
            features = views[indices, view]
        texts = captions.sample(indices) if captions is not None else None
        if fit_texts and texts is not None:
            features, texts = torch.cat([features, texts.vectors]), texts.doubled(len(features))
        batch, own_loss = quantize(features, assignments)
        terms = loss_terms(batch, texts, losses)
        total = sum((losses[name].config.weight * term for name, term in terms.items()), own_loss)
        return {"loss": total, **terms}

    loop.run(network, step, len(train.features), options, context, name="tokenizer")


class Texts(NamedTuple):
    """One caption vector for each image of a batch that has captions."""

    rows: Tensor
    """(b,) rows of the batch, ascending"""
    vectors: Tensor
    """(b, D)"""

    def doubled(self, batch_size: int) -> Texts:
        """For a batch in which these vectors are appended to the images, as images that describe themselves."""
        own = batch_size + torch.arange(len(self.rows))
        return Texts(torch.cat([self.rows, own]), torch.cat([self.vectors, self.vectors]))


class CaptionVectors:
    """Samples a caption vector for each image that has captions; fitted test images have none."""

    def __init__(self, corpus: Corpus, device: torch.device):
        if corpus.text_features is None or corpus.owners is None or not len(corpus.owners):
            raise GenretError(
                "no training image has a caption, but the tokenizer's losses align and align-contrastive need some; "
                "set their weights to 0"
            )
        order = torch.argsort(corpus.owners, stable=True)
        self.counts = torch.bincount(corpus.owners, minlength=len(corpus.features))
        self.starts = self.counts.cumsum(0) - self.counts
        self.vectors = corpus.text_features[order].to(device)

    def sample(self, images: Tensor) -> Texts:
        """(B,) images → a caption of each, sampled with torch's global random state."""
        draw = torch.rand(len(images))
        rows = (self.counts[images] > 0).nonzero()[:, 0]
        images, draw = images[rows], draw[rows]
        return Texts(rows, self.vectors[self.starts[images] + (draw * self.counts[images]).long()])


def loss_terms(batch: TokenizerBatch, texts: Texts | None, losses: Mapping[str, Loss]) -> dict[str, Tensor]:
    """Each loss by name, unweighted; those that need texts get the captioned images alone, if there are any."""
    captioned = _captioned(batch, texts) if texts is not None and len(texts.rows) else None
    terms = {}
    for name, loss in losses.items():
        if not loss.needs_text:
            terms[name] = loss_term(name, loss, batch)
        elif captioned is not None:
            terms[name] = loss_term(name, loss, captioned)
    return terms


def _captioned(batch: TokenizerBatch, texts: Texts) -> TokenizerBatch:
    if len(texts.rows) == len(batch.image):
        return batch._replace(text=texts.vectors)
    rows = texts.rows.to(batch.image.device)
    return TokenizerBatch(
        batch.image[rows],
        texts.vectors,
        batch.latent[rows],
        batch.partial[rows],
        batch.reconstruction[rows],
        [level[rows] for level in batch.assignments],
    )
