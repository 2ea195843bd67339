"""Training examples from the images' own vectors: image → identifier (GRACE), image → caption (TIGeR)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from genret.api import Backbone, GeneratorBatch, Loss
from genret.train.targets import Targets, rows_of_images


def needs_features(losses: Iterable[Loss]) -> bool:
    """Whether any of these losses needs the image vectors."""
    return any(loss.needs_image_logits or loss.needs_captions for loss in losses)


class ImageExamples:
    """N training images: their vectors and their own identifiers, without captions."""

    def __init__(self, features: Tensor, targets: Targets, tokens: Tensor):
        self.features = features.to(tokens.device)
        """(N, D)"""
        self.tokens = tokens
        """(R, L) the targets' identifiers as tokens"""
        self.rows = rows_of_images(targets.own.owners, len(features)).to(tokens.device)
        """(N, A) if they have several, one is sampled each time"""

    def add(
        self, batch: GeneratorBatch, backbone: Backbone, images: Tensor, captions: Sequence[str], losses: Iterable[Loss]
    ) -> GeneratorBatch:
        """What `losses` need of the images (B,) and of one caption each."""
        losses, images = list(losses), images.to(self.features.device)
        features = self.features[images]
        if any(loss.needs_image_logits for loss in losses):
            targets = self.tokens[self._drawn(images)]
            batch = batch._replace(image_logits=backbone.feature_logits(features, targets), image_targets=targets)
        if any(loss.needs_captions for loss in losses):
            batch = batch._replace(caption_log_probs=backbone.caption_log_probs(features, captions))
        return batch

    def _drawn(self, images: Tensor) -> Tensor:
        rows = self.rows[images]
        if rows.shape[1] == 1:
            return rows[:, 0]
        place = torch.randint(rows.shape[1], (len(rows), 1))
        return rows.gather(1, place.to(rows.device))[:, 0]
