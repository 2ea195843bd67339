"""ExampleIdentifier: the nearest of some random directions at each level."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file

import genret


class ExampleIdentifier(genret.Identifier):
    """The nearest of some random directions at each level: similar images share their first codes."""

    new_images = "content_based"  # the identifier follows from the image; "assigned" or "unsupported" if it does not

    class Config(genret.Config):
        codebook_size: int = Field(64, ge=2)
        """Codes per level."""
        num_levels: int = Field(3, ge=1)
        """Vokens per image."""

    def __init__(self, config=None, **resources):
        super().__init__(config, **resources)
        self.vokens = genret.Vokens((self.config.codebook_size,) * self.config.num_levels)
        self.directions = None  # (M, K, D)

    def fit(self, train, losses, context):
        size = (self.config.num_levels, self.config.codebook_size, train.features.shape[1])
        self.directions = torch.randn(size, generator=torch.Generator().manual_seed(context.seed))

    def identify(self, corpus):
        if self.directions is None:
            raise genret.GenretError("this example identifier is not fitted yet; train a run, or load one")
        codes = torch.einsum("nd,mkd->nmk", corpus.features, self.directions).argmax(-1)
        return genret.Identifiers(torch.arange(len(codes)), codes=codes)

    def save(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"directions": self.directions}, folder / "example.safetensors")

    def load(self, folder: Path):
        self.directions = load_file(folder / "example.safetensors")["directions"]
