"""Random codes: the lower bound for every identifier scheme.

Codes that depend on content should be easier to learn, or find new images more often, than random ones. Codes are a
hash of the image's id, so nothing is stored.
"""

import hashlib

import torch
from pydantic import Field

import genret


class RandomIdentifier(genret.Identifier):
    """Random codes: they distinguish images but do not depend on content."""

    new_images = "assigned"

    class Config(genret.Config):
        codebook_size: int = Field(256, ge=2, le=65536)
        """Codes per level."""
        num_levels: int = Field(4, ge=1, le=16)
        """Vokens per image."""
        salt: str = ""
        """Seed of the codes."""

    def __init__(self, config=None, **resources):
        super().__init__(config, **resources)
        self.vokens = genret.Vokens((self.config.codebook_size,) * self.config.num_levels)

    def fit(self, train, losses, context):
        """There is nothing to learn."""

    def identify(self, corpus):
        codes = torch.tensor([self.draw(image_id) for image_id in corpus.image_ids])
        return genret.Identifiers(torch.arange(len(codes)), codes=codes)

    def draw(self, image_id):
        """M codes of four bytes of a hash each: the same on every machine and for all library versions."""
        size, count = self.config.codebook_size, self.config.num_levels
        lot = hashlib.shake_256(f"{self.config.salt}\0{image_id}".encode()).digest(4 * count)
        return [int.from_bytes(lot[4 * level : 4 * level + 4], "big") % size for level in range(count)]

    def save(self, folder):
        """There is nothing to store: the options are in the run's recipe."""

    def load(self, folder):
        """There is nothing to read."""
