"""Vectors for fitting learned codes: initial samples and padding rows.

D width
"""

from __future__ import annotations

import torch
from torch import Tensor

from genret.api import Corpus, FitContext

CHUNK = 8192
"""Rows quantized at once, so that memory does not grow with the corpus."""
KMEANS_ROWS = 1 << 16
"""Maximum number of vectors used by k-means."""


def with_random_rows(vectors: Tensor, count: int) -> Tensor:
    """(S', D) → (count, D): missing rows are random but reproducible, with the mean square of the given ones."""
    fresh = torch.randn(count - len(vectors), vectors.shape[1], generator=torch.Generator().manual_seed(0))
    return torch.cat([vectors, fresh * vectors.square().mean().sqrt()])


def kmeans_rows(train: Corpus, fit_texts: bool, context: FitContext) -> Tensor:
    """Vectors to initialize codes from, (n, D) on the device: images, their views and, if requested, captions; a random
    sample (torch's global random state) if there are more than needed."""
    parts = [train.features if train.views is None else train.views.flatten(0, 1)]
    if fit_texts and train.text_features is not None:
        parts.append(train.text_features)
    rows = torch.cat(parts)
    if len(rows) > KMEANS_ROWS:
        rows = rows[torch.randperm(len(rows))[:KMEANS_ROWS]]
    return rows.to(context.device)
