"""ExampleEncoder: coarse colours and bags of words, aligned by ridge regression."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors.torch import load_file, save_file

import genret


class ExampleEncoder(genret.Encoder):
    """Images as a few coarse pixels, texts as hashed words; texts are mapped to images by ridge regression."""

    class Config(genret.Config):
        pixels: int = Field(8, ge=1, le=64)
        """Images are resized to this width and height."""
        buckets: int = Field(512, ge=8)
        """Number of buckets that words are hashed into."""
        ridge: float = Field(0.1, gt=0)
        """Strength of the regularization."""

    def __init__(self, config=None, **resources):
        super().__init__(config, **resources)
        self.weights = None  # (D_text, D_image)

    def tower_key(self, modality):
        return f"example-{modality}-{self.config.pixels if modality == 'image' else self.config.buckets}"

    def image_features(self, images, view=0):
        side = self.config.pixels
        small = [np.asarray(image.convert("RGB").resize((side, side)), dtype=np.float32) for image in images]
        return torch.from_numpy(np.stack(small)).flatten(1) / 127.5 - 1

    def text_features(self, texts):
        counts = torch.zeros(len(texts), self.config.buckets)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                counts[row, zlib.crc32(word.encode()) % self.config.buckets] += 1
        return counts

    def fit(self, train: genret.Pairs, dev: genret.Pairs, context: genret.FitContext):
        images = F.normalize(train.images[train.owners, 0], dim=-1)
        gram = train.texts.T @ train.texts + self.config.ridge * torch.eye(train.texts.shape[1])
        self.weights = torch.linalg.solve(gram, train.texts.T @ images)

    def project_texts(self, features):
        if self.weights is None:
            raise genret.GenretError("this example encoder is not fitted yet; train a run, or load one")
        return F.normalize(features @ self.weights, dim=-1)

    def save(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"weights": self.weights.cpu().contiguous()}, folder / "example.safetensors")

    def load(self, folder: Path):
        self.weights = load_file(folder / "example.safetensors")["weights"]

    def to(self, device):
        if self.weights is not None:
            self.weights = self.weights.to(device)
