"""ExampleRetriever: the similarity of query and image, and a bonus for images whose id has the query's words."""

from __future__ import annotations

import numpy as np
from pydantic import Field

import genret


class ExampleRetriever(genret.CatalogRetriever):
    """The similarity of the two towers' vectors, and a bonus for words of the query that are in an image's name."""

    class Config(genret.Config):
        bonus: float = Field(0.5, ge=0)
        """Bonus for each word of the query that is in the name."""

    def build_index(self, view, keys):
        names = [set(row.image_id.lower().replace("-", " ").split()) for row in view.lookup(keys)]
        return keys, view.features_of(keys), names  # (N,), (N, D), N; computed for each version of the catalog

    def candidates(self, view, index, batch, k, num_beams, allowed):
        keys, features, names = index
        scores = (batch.vectors @ features.T).numpy()  # (B, N)
        for row, text in enumerate(batch.texts):
            words = set(text.lower().split())
            scores[row] += self.config.bonus * np.array([len(words & name) for name in names])
        return genret.Ranked.of(scores, keys, self.depth(k), allowed)
