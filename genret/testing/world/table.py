"""Easy identifiers, for tests of other components."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch

from genret.api import Corpus, FitContext, Identifier, Identifiers, Loss, NewImages, Vokens

SIDE = 6


class Table(Identifier):
    """An image's index among up to 36, as two codes. No fit, no files."""

    new_images: ClassVar[NewImages] = "unsupported"
    vokens = Vokens((SIDE, SIDE))

    def fit(self, train: Corpus, losses: Mapping[str, Loss], context: FitContext) -> None:
        """There is nothing to learn."""

    def identify(self, corpus: Corpus) -> Identifiers:
        row = torch.arange(len(corpus.features))
        return Identifiers(row, codes=torch.stack([row // SIDE, row % SIDE], dim=1))

    def save(self, folder: Path) -> None:
        """There is nothing to store."""

    def load(self, folder: Path) -> None:
        """There is nothing to read."""


class NearestTable(Table):
    """The index of the nearest image of the world; new images get identifiers, too."""

    new_images = "content_based"

    def __init__(self, train: Corpus):
        super().__init__()
        self.features = train.features

    def identify(self, corpus: Corpus) -> Identifiers:
        row = (corpus.features @ self.features.T).argmax(1)
        return Identifiers(torch.arange(len(row)), codes=torch.stack([row // SIDE, row % SIDE], dim=1))
