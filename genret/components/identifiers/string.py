"""GRACE's string identifiers (arXiv 2402.10805): an image's number as text, in the language model's own tokens.

They do not depend on content: a model can only memorize them, and those of new images only guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from genret.api import Corpus, FitContext, Identifier, Identifiers, Loss
from genret.components.identifiers import known
from genret.components.identifiers.known import KnownImages, NumberingConfig


class StringIdentifier(Identifier):
    """A number without leading zeros: a tokenizer may make one token of "17" and two of "1234"."""

    new_images = "assigned"

    class Config(NumberingConfig):
        pass

    def __init__(self, config: Any = None, **resources: Any):
        super().__init__(config, **resources)
        self.images: KnownImages | None = None

    def fit(self, train: Corpus, losses: Mapping[str, Loss], context: FitContext) -> None:
        self.images = KnownImages.numbered(train.image_ids, self.config.order, context.seed)

    def identify(self, corpus: Corpus) -> Identifiers:
        numbers = known.fitted(self.images, "string").numbers(corpus)
        return Identifiers(torch.arange(len(numbers)), texts=[str(number) for number in numbers.tolist()])

    def save(self, folder: Path) -> None:
        known.fitted(self.images, "string").save(folder)

    def load(self, folder: Path) -> None:
        self.images = KnownImages.load(folder)
