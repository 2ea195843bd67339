"""What a search returns beyond its first stage, over all queries of a split: the recipe's reranker, batch by batch.

Images are rows of the split here, and keys of the catalog where the retriever is asked.

Q queries   C images found for each
"""

from __future__ import annotations

from typing import Any

import numpy as np

from genret.components.retrievers.two_tower import TwoTowerRetriever, graph_of, nearest
from genret.evaluate.metrics import CUTOFFS
from genret.evaluate.question import Question
from genret.search.catalog import CatalogRetriever
from genret.search.ranking import Ranked


def search_densely(retriever: TwoTowerRetriever, question: Question, least: int) -> Ranked:
    """(Q, C) the split's nearest images as the recipe's index finds them; as many as matter, and at least `least`."""
    count = min(max(least, retriever.depth(max(CUTOFFS))), len(question.keys))
    graph = graph_of(question.features, retriever.options.index)
    found = nearest(question.query_features, question.features, graph, count)
    return Ranked(found.rows.numpy(), found.scores.numpy(), np.full(found.rows.shape, -1))


def rerank(retriever: CatalogRetriever, question: Question, ranked: Ranked, ui: Any) -> Ranked:
    """What the first stage found (Q, C) as a search for ten images would return it."""
    if retriever.reranker is None:
        return ranked
    parts: list[Ranked] = []
    keys, size = np.append(question.keys, -1), retriever.options.batch_size
    depth = min(retriever.depth(max(CUTOFFS)), ranked.images.shape[1])
    with ui.progress(f"rerank, {depth} candidates", len(question.queries)) as bar:
        for start in range(0, len(question.queries), size):
            rows = slice(start, start + size)
            some = Ranked(keys[ranked.images[rows]], ranked.scores[rows], ranked.leaves[rows])
            queries = question.queries[rows]
            found = retriever.rerank(queries, question.query_features[rows], some, max(CUTOFFS))
            there = found.images >= 0
            parts.append(found._replace(images=np.where(there, np.searchsorted(question.keys, found.images), -1)))
            bar.advance(len(queries))
    images, scores, leaves = (np.concatenate([part[field] for part in parts]) for field in range(3))
    return Ranked(images, scores, leaves)
