"""Random codes: the floor that every identifier must beat.

A scheme whose codes say something of the image has to be learnt more easily, or lead to new images more often,
than codes that were drawn by lot. The lot is the image's id, so nothing has to be stored.
"""

import hashlib

import torch
from pydantic import Field

import genret


class RandomIdentifier(genret.Identifier):
    """Codes by lot: they tell images apart and say nothing of them."""

    new_images = "assigned"

    class Config(genret.Config):
        codebook_size: int = Field(256, ge=2, le=65536)
        """Codes per level."""
        num_levels: int = Field(4, ge=1, le=16)
        """Vokens per image."""
        salt: str = ""
        """Another salt is another draw."""

    def __init__(self, config=None, **resources):
        super().__init__(config, **resources)
        self.vokens = genret.Vokens((self.config.codebook_size,) * self.config.num_levels)

    def fit(self, train, losses, context):
        """There is nothing to learn."""

    def identify(self, corpus):
        codes = torch.tensor([self.draw(image_id) for image_id in corpus.image_ids])
        return genret.Identifiers(torch.arange(len(codes)), codes=codes)

    def draw(self, image_id):
        """M codes of four bytes of a hash each: the same on every machine, in every version of every library."""
        size, count = self.config.codebook_size, self.config.num_levels
        lot = hashlib.shake_256(f"{self.config.salt}\0{image_id}".encode()).digest(4 * count)
        return [int.from_bytes(lot[4 * level : 4 * level + 4], "big") % size for level in range(count)]

    def save(self, folder):
        """There is nothing to store: the options are in the run's recipe."""

    def load(self, folder):
        """There is nothing to read."""
