"""Two towers and an exact search over all image vectors: the baseline beside every generative result."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from genret.retrievers.catalog import CatalogRetriever
from genret.retrievers.dense import dense_search
from genret.retrievers.ranking import Ints, Ranked


class TwoTowerRetriever(CatalogRetriever):
    """CLIP's paradigm: cosine similarity of text and image vectors."""

    def candidates(self, queries: Sequence[str], k: int, num_beams: int | None, allowed: Ints | None) -> Ranked:
        keys = self.catalog.searchable_keys()
        if allowed is not None:
            keys = np.intersect1d(keys, allowed)
        found = dense_search(self.text_vectors(queries), self.catalog.features_of(keys), k)
        rows = found.rows.numpy()
        images = np.where(rows < 0, -1, np.append(keys, -1)[rows])
        return Ranked(images, found.scores.numpy(), np.full_like(images, -1))

    def identifiers(self, features: Tensor, image_ids: Sequence[str]) -> list[list[bytes]]:
        return [[] for _ in image_ids]

    def names(self, keys: Ints, leaves: Ints) -> list[list[str] | None]:
        return [None] * len(keys)
