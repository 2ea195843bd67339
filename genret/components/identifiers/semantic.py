"""GRACE's semantic identifiers (arXiv 2402.10805): captions in the language model's own tokens.

An image has several, and images may share one. Images of the fit keep their captions; a new image gets, from the
captions of its nearest images, those most similar to its own vector. The captions of new images are never read.

    N images   T captions   D width of the shared space
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from genret import api
from genret.api import Corpus, FitContext, Identifier, Identifiers, Loss
from genret.components.identifiers.known import texts_of
from genret.errors import GenretError
from genret.kit.captions import nearest_captions
from genret.toolbox import saving as stored


class Captioned(NamedTuple):
    """The state of a fit: N images with captions, and their T distinct captions in the order of the images."""

    image_ids: list[str]
    features: Tensor
    """(N, D) float16"""
    texts: list[str]
    text_features: Tensor
    """(T, D) float16"""
    starts: Tensor
    """(N + 1,) the captions of image n are `starts[n]` .. `starts[n + 1] - 1`"""

    def of(self, image: int) -> range:
        return range(int(self.starts[image]), int(self.starts[image + 1]))


class SemanticIdentifier(Identifier):
    """Captions of the image: readable, but long, and rarely unique."""

    class Config(api.Config):
        per_image: int = Field(5, ge=1)
        """Maximum number of captions per image."""
        max_words: int = Field(16, ge=1)
        """Maximum number of words; longer captions are truncated."""
        lowercase: bool = True
        """Whether captions that differ only in case are one identifier."""
        neighbours: int = Field(10, ge=1)
        """Number of nearest images of the fit whose captions are candidates for a new image; the most similar ones are
        used."""

    def __init__(self, config: Any = None, **resources: Any):
        super().__init__(config, **resources)
        self.captioned: Captioned | None = None
        self._row: dict[str, int] = {}

    # ------------------------------------------------------------------------------------------------ fitting
    def fit(self, train: Corpus, losses: Mapping[str, Loss], context: FitContext) -> None:
        if train.text_features is None or train.owners is None or not train.captions:
            raise GenretError("the semantic identifier is made of training captions, but there are none; use another")
        texts: list[dict[str, int]] = [{} for _ in train.image_ids]  # of each image: caption text → the caption's row
        for row, (caption, owner) in enumerate(zip(train.captions, train.owners.tolist(), strict=True)):
            if text := self.normalize(caption):
                texts[owner].setdefault(text, row)
        images = [image for image, found in enumerate(texts) if found]
        if not images:
            raise GenretError("the semantic identifier is made of training captions, but all of them are empty")
        captions = [row for image in images for row in texts[image].values()]
        counts = torch.tensor([0, *(len(texts[image]) for image in images)])
        self._set(
            Captioned(
                [train.image_ids[image] for image in images],
                train.features[images].half().cpu(),
                [text for image in images for text in texts[image]],
                train.text_features[captions].half().cpu(),
                counts.cumsum(0),
            )
        )

    def _set(self, captioned: Captioned) -> None:
        self.captioned = captioned
        self._row = {image_id: row for row, image_id in enumerate(captioned.image_ids)}

    def normalize(self, caption: str) -> str:
        """A caption as an identifier: spaces normalized, no full stop, truncated to the maximum number of words."""
        text = unicodedata.normalize("NFKC", caption)
        if self.config.lowercase:
            text = text.lower()
        return " ".join(text.split()[: self.config.max_words]).rstrip(".,;:! ")

    # ------------------------------------------------------------------------------------------------ using
    def identify(self, corpus: Corpus) -> Identifiers:
        fit = self._fitted()
        described = self._described(fit, corpus)
        owners: list[int] = []
        texts: list[str] = []
        for image, image_id in enumerate(corpus.image_ids):
            row = self._row.get(image_id)
            own = [fit.texts[caption] for caption in fit.of(row)] if row is not None else next(described)
            texts += own[: self.config.per_image]
            owners += [image] * min(len(own), self.config.per_image)
        return Identifiers(torch.tensor(owners, dtype=torch.int64), texts=texts)

    def _described(self, fit: Captioned, corpus: Corpus) -> Iterator[list[str]]:
        """For each new image, the distinct captions of its nearest images, most similar first."""
        new = [row for row, image_id in enumerate(corpus.image_ids) if image_id not in self._row]
        if new:
            vectors, images = corpus.features[new].cpu().float(), fit.features.float()
            found = nearest_captions(vectors, images, fit.text_features, fit.starts, self.config.neighbours)
            yield from (list(dict.fromkeys(fit.texts[caption] for caption in captions)) for captions in found)

    def _fitted(self) -> Captioned:
        if self.captioned is None:
            raise GenretError("this semantic identifier is not fitted yet; train a run, or load one")
        return self.captioned

    # ------------------------------------------------------------------------------------------------ disk
    def save(self, folder: Path) -> None:
        fit = self._fitted()
        tensors = {"features": fit.features, "text_features": fit.text_features, "starts": fit.starts}
        stored.save(folder, "captions", tensors, {"image_ids": fit.image_ids, "texts": fit.texts})

    def load(self, folder: Path) -> None:
        with stored.reading(folder, "identifier model"):
            tensors, facts = stored.load(folder, "captions")
            image_ids, texts = texts_of(facts, "image_ids"), texts_of(facts, "texts")
            fit = Captioned(image_ids, tensors["features"], texts, tensors["text_features"], tensors["starts"])
            sizes = (len(fit.features), len(fit.text_features), len(fit.starts) - 1, int(fit.starts[-1]))
            if sizes != (len(image_ids), len(texts), len(image_ids), len(texts)):
                raise ValueError("captions.json and captions.safetensors do not belong together")
        self._set(fit)
