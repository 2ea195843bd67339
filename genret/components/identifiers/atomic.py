"""GRACE's atomic identifiers (arXiv 2402.10805): one new token for each image.

The vocabulary gets one voken per image of the fit; other images cannot have an identifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from genret.api import Corpus, FitContext, Identifier, Identifiers, Loss, Vokens
from genret.components.identifiers import known
from genret.components.identifiers.known import KnownImages
from genret.errors import GenretError


class AtomicIdentifier(Identifier):
    """A single voken that belongs to one image only."""

    new_images = "unsupported"

    def __init__(self, config: Any = None, **resources: Any):
        super().__init__(config, **resources)
        self.images: KnownImages | None = None

    def fit(self, train: Corpus, losses: Mapping[str, Loss], context: FitContext) -> None:
        self._set(KnownImages(train.image_ids))

    def _set(self, images: KnownImages) -> None:
        self.images = images
        self.vokens = Vokens((len(images),))

    def identify(self, corpus: Corpus) -> Identifiers:
        images = known.fitted(self.images, "atomic")
        if new := [image_id for image_id in corpus.image_ids if image_id not in images]:
            others = f" (nor do {len(new) - 1:,} more)" if len(new) > 1 else ""
            raise GenretError(
                f"image '{new[0]}' has no atomic identifier{others}: only images that were trained on have one; train "
                "again with it, or use an identifier that is made from the picture, such as rq"
            )
        return Identifiers(torch.arange(len(corpus.image_ids)), codes=images.numbers(corpus)[:, None])

    def save(self, folder: Path) -> None:
        known.fitted(self.images, "atomic").save(folder)

    def load(self, folder: Path) -> None:
        self._set(KnownImages.load(folder))
