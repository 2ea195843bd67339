"""Both stages of a search over all queries of a split, in batches, for retrievers without a trace.

Images are rows of the split here, and keys of the catalog in calls to the retriever.

Q queries   C images found for each
"""

from __future__ import annotations

from typing import Any

import numpy as np

from genret.api import Progress
from genret.catalog.store import Snapshot
from genret.evaluate.metrics import CUTOFFS
from genret.evaluate.queries import QuerySet
from genret.search.catalog import CatalogRetriever
from genret.search.ranking import Ranked
from genret.search.restrict import EVERYTHING


def first_stage(
    retriever: CatalogRetriever,
    snapshot: Snapshot,
    index: Any,
    asked: QuerySet,
    num_beams: int | None,
    depth: int,
    progress: Progress,
) -> Ranked:
    """(Q, C) the first stage's results among the images of `index`, as many as are used, and at least `depth`."""
    parts, size = list[Ranked](), retriever.options.batch_size
    with progress("search", len(asked.queries)) as bar:
        for start in range(0, len(asked.queries), size):
            batch = asked.batch.rows(start, start + size)
            allowed = [EVERYTHING] * len(batch)
            parts.append(retriever.candidates(snapshot, index, batch, depth, num_beams, allowed))
            bar.advance(len(batch))
    return asked.rows(Ranked.joined(parts))


def rerank(retriever: CatalogRetriever, asked: QuerySet, ranked: Ranked, progress: Progress) -> Ranked:
    """The first stage's results (Q, C) as a search for ten images would return them."""
    if retriever.reranker is None:
        return ranked
    parts, size = list[Ranked](), retriever.options.batch_size
    keys = np.append(asked.keys, -1)
    depth = min(retriever.depth(max(CUTOFFS)), ranked.images.shape[1])
    with progress(f"rerank, {depth} candidates", len(asked.queries)) as bar:
        for start in range(0, len(asked.queries), size):
            rows = slice(start, start + size)
            some = Ranked(keys[ranked.images[rows]], ranked.scores[rows], ranked.leaves[rows])
            batch = asked.batch.rows(start, start + size)
            parts.append(retriever.rerank(batch, some, max(CUTOFFS)))
            bar.advance(len(batch))
    return asked.rows(Ranked.joined(parts))
