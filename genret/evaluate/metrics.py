"""Retrieval measures over rankings of image rows. Does not know how the rankings came about; ties are the caller's.

Q queries   K length of the rankings   P relevant (query, image) pairs
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Recalls = dict[str, float | None]
"""In percent by cutoff, as JSON wants it: {"1": 23.9, "5": 53.0, "10": 66.4}; None where it cannot be measured."""

CUTOFFS = (1, 5, 10)
MISSED = int(np.iinfo(np.int64).max)
"""The rank of what was not found."""


class Relevant(NamedTuple):
    """Which image rows answer each query; every query has at least one."""

    queries: Ints
    """(P,) ascending"""
    rows: Ints
    """(P,) ascending within a query, none twice"""
    num_queries: int

    @classmethod
    def of(cls, relevant: RelevantLike) -> Relevant:
        """From one row per query, or a collection of rows per query."""
        if isinstance(relevant, Relevant):
            return relevant
        if isinstance(relevant, np.ndarray) and relevant.ndim == 1:
            return cls(np.arange(len(relevant)), relevant.astype(np.int64), len(relevant))
        collections: Iterable[Iterable[int]] = relevant  # type: ignore[assignment]  # numpy rows count as any
        lists = [np.unique(np.fromiter(rows, dtype=np.int64)) for rows in collections]
        assert all(len(rows) for rows in lists), "every query needs a relevant image"
        counts = np.array([len(rows) for rows in lists], dtype=np.int64)
        return cls(
            np.repeat(np.arange(len(lists)), counts), np.concatenate([np.zeros(0, np.int64), *lists]), len(lists)
        )

    @property
    def counts(self) -> Ints:
        """(Q,) how many images answer each query."""
        return np.bincount(self.queries, minlength=self.num_queries)


RelevantLike = Relevant | Ints | Sequence[Iterable[int]]


class Scores(NamedTuple):
    """Recalls are percentages, the others lie between 0 and 1."""

    recall: dict[str, float | None]
    """`recall@k` by k: queries with any relevant image among the first k"""
    true_recall: dict[str, float | None]
    """by k: the share of the relevant images among the first k, averaged over queries"""
    mrr: float
    """mean of 1 / rank of the first relevant image"""
    ndcg_at_10: float
    median_rank: float | None
    """of the first relevant image; None where half of the queries found none"""


def summarize(
    ranked: Ints, relevant: RelevantLike, cutoffs: Sequence[int] = CUTOFFS, num_beams: int | None = None
) -> Scores:
    """All measures of rankings (Q, K); -1 pads. What takes more than `num_beams` places is not measured: None."""
    wanted = Relevant.of(relevant)
    hits = _hits(ranked, wanted)
    ranks = _first(hits)
    measurable = {k: num_beams is None or k <= num_beams for k in cutoffs}
    return Scores(
        recalls(ranks, cutoffs, num_beams),
        {str(k): _true_recall(hits, wanted, k) if measurable[k] else None for k in cutoffs},
        mrr(ranks),
        _ndcg(hits, wanted, 10),
        median_rank(ranks),
    )


def best_ranks(ranked: Ints, relevant: RelevantLike) -> Ints:
    """(Q, K) rows, -1 pads → (Q,) rank of the best placed relevant image from 1, `MISSED` where there is none."""
    return _first(_hits(ranked, Relevant.of(relevant)))


def recalls(ranks: Ints, cutoffs: Sequence[int] = CUTOFFS, num_beams: int | None = None) -> Recalls:
    """(Q,) ranks → recall@k by k, in percent; None for k above `num_beams`."""
    return {str(k): recall(ranks, k) if num_beams is None or k <= num_beams else None for k in cutoffs}


def recall(ranks: Ints, k: int) -> float:
    """(Q,) ranks → percentage of the queries whose best relevant image is among the first k."""
    return 100.0 * int((ranks <= k).sum()) / max(1, len(ranks))


def true_recall(ranked: Ints, relevant: RelevantLike, k: int) -> float:
    """Percentage of a query's relevant images that are among the first k, averaged over queries."""
    wanted = Relevant.of(relevant)
    return _true_recall(_hits(ranked, wanted), wanted, k)


def mrr(ranks: Ints) -> float:
    """Mean reciprocal rank, 0 for what was not found."""
    return float(np.where(ranks < MISSED, 1.0 / ranks, 0.0).sum() / max(1, len(ranks)))


def median_rank(ranks: Ints) -> float | None:
    """None where it lies among the queries that found nothing."""
    if not len(ranks):
        return None
    middle = np.sort(ranks)[[(len(ranks) - 1) // 2, len(ranks) // 2]]
    return None if middle[1] >= MISSED else float(middle.mean())


def ndcg(ranked: Ints, relevant: RelevantLike, k: int = 10) -> float:
    """Normalised discounted cumulative gain at k, gain 1 for each relevant image."""
    wanted = Relevant.of(relevant)
    return _ndcg(_hits(ranked, wanted), wanted, k)


def _true_recall(hits: NDArray[np.bool_], relevant: Relevant, k: int) -> float:
    return 100.0 * float((hits[:, :k].sum(axis=1) / relevant.counts).sum() / max(1, len(hits)))


def _ndcg(hits: NDArray[np.bool_], relevant: Relevant, k: int) -> float:
    discount = 1.0 / np.log2(np.arange(k) + 2)
    ideal = np.cumsum(discount)[np.minimum(relevant.counts, k) - 1]
    gained = (hits[:, :k] * discount[: hits.shape[1]]).sum(axis=1)
    return float((gained / ideal).sum() / max(1, len(hits)))


def _hits(ranked: Ints, relevant: Relevant) -> NDArray[np.bool_]:
    """(Q, K) whether a relevant image stands there for the first time."""
    assert ranked.ndim == 2 and len(ranked) == relevant.num_queries, "one ranking per query"
    queries = np.broadcast_to(np.arange(len(ranked))[:, None], ranked.shape)
    stride = int(max(ranked.max(initial=0), relevant.rows.max(initial=0))) + 1
    there = ranked >= 0
    keys = np.where(there, queries * stride + ranked, -1)
    hits: NDArray[np.bool_] = there & np.isin(keys, relevant.queries * stride + relevant.rows)
    _, first = np.unique(keys, return_index=True)  # an image that is listed twice counts once
    once = np.zeros(ranked.size, dtype=bool)
    once[first] = True
    return hits & once.reshape(ranked.shape)


def _first(hits: NDArray[np.bool_]) -> Ints:
    if not hits.shape[1]:
        return np.full(len(hits), MISSED, dtype=np.int64)
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, MISSED).astype(np.int64)
