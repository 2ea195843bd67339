"""Follows single queries through a search: the results, and where the relevant image is lost.

Searches are those of evaluation (one split's images, its beams, its reranker), for a few queries.

    Q queries of the split   N images   M levels   T sampled captions
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from genret.api import Ui, Vokens
from genret.catalog.store import ImageRow, Snapshot
from genret.components.retrievers.explanation import Explanation
from genret.evaluate.ledger import Trace, attribute
from genret.evaluate.queries import QuerySet, text_vectors
from genret.evaluate.ranks import query_hashes
from genret.evaluate.run import Explained, Found, explain
from genret.kit.arrays import Ints
from genret.lab.report.figures import K, place, ranks_in_order
from genret.lab.report.stored import StoredRun
from genret.search.catalog import CatalogRetriever
from genret.search.dense import dense_ranks
from genret.settings import Settings

SHOWN = 5
"""Number of images per query."""
CAPTIONS = 4_000
"""Number of captions encoded for the voken section, besides the queries."""


class Shown(NamedTuple):
    """One image of a result."""

    rank: int
    image: ImageRow
    score: float
    identifier: list[str] | None
    is_right: bool


@dataclass(frozen=True, kw_only=True)
class TracedQuery:
    """Ranks count from 1; None: not found or not applicable."""

    kind: Literal["best", "worst"]
    query: str
    right: ImageRow
    identifier: list[str] | None
    """of the relevant image"""
    rank: int | None
    dense_rank: int | None
    """in two-tower search"""
    ceiling_rank: int | None
    """in dense search by reconstructed vectors"""
    prefix_ranks: list[int | None]
    """By level, the rank of the positive prefix in the beam; None: it was dropped"""
    lost_at: str | None
    """The ledger's reason why the image is not in the top K; `dense` if two-tower search fails too"""
    hits: list[Shown]
    explanation: Explanation | None
    """The same search level by level, for retrievers that have it"""

    def as_json(self) -> dict[str, Any]:
        plain = dict(vars(self)) | {"right": self.right.image_id}
        plain["explanation"] = self.explanation and self.explanation.as_json()["levels"]
        return plain | {
            "hits": [
                {"rank": hit.rank, "image_id": hit.image.image_id, "score": hit.score, "identifier": hit.identifier}
                for hit in self.hits
            ]
        }


class Sample(NamedTuple):
    """Results of queries on an open run."""

    queries: list[TracedQuery]
    """The worst first"""
    captions: list[str]
    """(T,) of the split, evenly spread"""
    caption_features: Tensor
    """(T, D)"""


def choose(ranks: Ints, dense_ranks: Ints, images: Ints, count: int) -> tuple[list[int], list[int]]:
    """(Q,) ranks → rows of the worst and of the best queries, `count` in all, at most one per image.

    Worst: the relevant image is ranked lowest; ties go to the best rank in two-tower search. Best: the other way round.
    So both show effects of generation rather than of difficult queries.
    """
    worst = np.lexsort((np.arange(len(ranks)), dense_ranks, -ranks))
    best = np.lexsort((np.arange(len(ranks)), -dense_ranks, ranks))
    used: set[int] = set()

    def take(order: Ints, most: int, keep: Any) -> list[int]:
        rows = list[int]()
        for row in order.tolist():
            if len(rows) == most or not keep(row):
                break
            if (image := int(images[row])) not in used:
                used.add(image)
                rows.append(row)
        return rows

    bad = take(worst, (count + 1) // 2, lambda row: ranks[row] > 1)
    return bad, take(best, count - len(bad), lambda row: ranks[row] <= K)


def sample(stored: StoredRun, retriever: CatalogRetriever, count: int, settings: Settings, ui: Ui) -> Sample | None:
    """Repeats the best and worst `count` queries; None if the split has no captions. Without stored ranks of the same
    queries none are chosen."""
    split = stored.searched_split
    captions = retriever.catalog.captions(split)
    if not captions.texts:
        return None
    keys = retriever.catalog.keys(split)
    images = retriever.catalog.lookup(keys)
    owners = np.searchsorted(keys, captions.image_keys)
    worst, best = _chosen(
        stored, query_hashes(captions.texts, owners.tolist(), [row.image_id for row in images]), owners, count
    )
    rows = worst + best
    others = np.unique(np.linspace(0, len(owners) - 1, min(CAPTIONS, len(owners))).astype(int)).tolist()
    texts = [captions.texts[row] for row in rows + others]
    vectors = text_vectors(retriever, texts, settings.features_dir, ui.progress)
    queries = QuerySet(
        split=split,
        keys=keys,
        image_ids=[row.image_id for row in images],
        features=retriever.catalog.features_of(keys),
        queries=texts[: len(rows)],
        relevant=owners[rows],
        query_features=vectors[: len(rows)],
    )
    traced = []
    if rows:
        kinds: list[Literal["best", "worst"]] = [*["worst"] * len(worst), *["best"] * len(best)]  # type: ignore[list-item]
        with retriever.catalog.snapshot() as snapshot:
            traced = _followed(stored, retriever, snapshot, queries, images, kinds, ui)
    return Sample(traced, texts[len(rows) :], vectors[len(rows) :])


def _chosen(stored: StoredRun, queries: Ints, owners: Ints, count: int) -> tuple[list[int], list[int]]:
    kept = stored.by_num_beams.get(stored.followed_beams or 0, stored.own_search)
    found = None if kept is None else ranks_in_order(kept, queries)
    dense = None if stored.two_tower is None else ranks_in_order(stored.two_tower, queries)
    if found is None or count < 1:
        return [], []
    return choose(found, found if dense is None else dense, owners, count)


def _followed(
    stored: StoredRun,
    retriever: CatalogRetriever,
    snapshot: Snapshot,
    queries: QuerySet,
    images: list[ImageRow],
    kinds: Sequence[Any],
    ui: Ui,
) -> list[TracedQuery]:
    index = retriever.build_index(snapshot, queries.keys)
    if index is None:
        return []
    width = (stored.followed_beams or retriever.num_beams) if retriever.has_beams else None
    found = Found.of(retriever, snapshot, index, queries, width, SHOWN, ui)
    exact = dense_ranks(queries.query_features, queries.features, queries.relevant)
    explained = explain(retriever, snapshot, index, queries, exact, found)
    return [
        TracedQuery(
            kind=kind,
            query=queries.queries[q],
            right=images[queries.relevant[q]],
            identifier=_identifier(snapshot, int(queries.right_keys[q])),
            rank=place(found.ranks[q]),
            dense_rank=place(exact[q]),
            ceiling_rank=None if explained is None or explained.ceiling is None else place(explained.ceiling[q]),
            prefix_ranks=[] if explained is None else [place(rank) for rank in explained.trace.prefix_ranks[q]],
            lost_at=_lost_at(found, exact, explained, q),
            hits=_hits(retriever, snapshot, index, queries, found, images, q),
            explanation=_explanation(retriever, snapshot, index, queries, width, q),
        )
        for q, kind in enumerate(kinds)
    ]


def _explanation(
    retriever: CatalogRetriever, snapshot: Snapshot, index: Any, queries: QuerySet, width: int | None, query: int
) -> Explanation | None:
    if width is None or not retriever.has_explanation:
        return None
    batch, key = queries.batch.rows(query, query + 1), int(queries.right_keys[query])
    found: Explanation = retriever.explained(snapshot, index, batch, key, width, SHOWN)
    return found


def _lost_at(found: Found, exact: Ints, explained: Explained | None, query: int) -> str | None:
    """The ledger's row that counts the query; None if its image is in the top K."""
    if found.ranks[query] <= K:
        return None
    if explained is None:
        return "dense" if exact[query] > K else "search"
    return _cause(explained.trace, attribute(explained.trace, K), query)


def _identifier(snapshot: Snapshot, key: int) -> list[str] | None:
    """The codes of an image's first identifier."""
    rows = snapshot.identifiers_of(np.array([key]))
    if not len(rows.image_keys):
        return None
    if rows.codes is None:
        assert rows.texts is not None
        return [rows.texts[0]]
    return [Vokens().name(level, code) for level, code in enumerate(rows.codes[0].tolist()) if code >= 0]


def _cause(trace: Trace, causes: Ints, query: int) -> str:
    """The ledger's row that counts the query."""
    num_levels = trace.prefix_ranks.shape[1]
    if trace.image_ranks[query] <= K:
        return "rerank"
    if trace.ceiling_ranks[query] > K:
        return "dense" if trace.dense_ranks[query] > K else "quantization"
    cause = int(causes[query])
    return f"level {cause + 1}" if cause < num_levels else ("beam", "collision")[cause - num_levels]


def _hits(
    retriever: CatalogRetriever,
    snapshot: Snapshot,
    index: Any,
    queries: QuerySet,
    found: Found,
    images: list[ImageRow],
    query: int,
) -> list[Shown]:
    answer = found.answer
    rows = answer.images[query, :SHOWN]
    rows = rows[rows >= 0]
    names = retriever.names(snapshot, index, queries.keys[rows], answer.leaves[query, : len(rows)])
    return [
        Shown(number + 1, images[row], float(answer.scores[query, number]), name, row == queries.relevant[query])
        for number, (row, name) in enumerate(zip(rows.tolist(), names, strict=True))
    ]
