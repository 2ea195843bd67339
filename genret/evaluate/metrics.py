"""Retrieval measures over rankings of image rows. Independent of the search; callers break ties.

Everything is computed from the ranks of the P relevant (query, image) pairs, so that a dense search without stored
rankings is measured by the same code as a beam search. The definitions are those of trec_eval; the tests compare them
with ir_measures and ranx.

Q queries   K length of the rankings   P relevant (query, image) pairs
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from genret.kit.arrays import Doubles, Ints
from genret.search.trace import MISSED

Recalls = dict[str, float | None]
"""In percent by cutoff, for JSON: {"1": 23.9, "5": 53.0, "10": 66.4}; None if it cannot be measured."""

CUTOFFS = (1, 5, 10)


class Relevant(NamedTuple):
    """The relevant image rows of each query; every query has at least one."""

    queries: Ints
    """(P,) ascending"""
    rows: Ints
    """(P,) ascending within a query, without duplicates"""
    num_queries: int

    @classmethod
    def of(cls, relevant: RelevantLike) -> Relevant:
        """From one row per query, or a collection of rows per query."""
        if isinstance(relevant, Relevant):
            return relevant
        if isinstance(relevant, np.ndarray) and relevant.ndim == 1:
            return cls(np.arange(len(relevant)), relevant.astype(np.int64), len(relevant))
        collections: Iterable[Iterable[int]] = relevant  # type: ignore[assignment]  # numpy rows are iterable
        lists = [np.unique(np.fromiter(rows, dtype=np.int64)) for rows in collections]
        assert all(len(rows) for rows in lists), "every query needs a relevant image"
        counts = np.array([len(rows) for rows in lists], dtype=np.int64)
        return cls(
            np.repeat(np.arange(len(lists)), counts), np.concatenate([np.zeros(0, np.int64), *lists]), len(lists)
        )

    @property
    def counts(self) -> Ints:
        """(Q,) number of relevant images of each query."""
        return np.bincount(self.queries, minlength=self.num_queries)


RelevantLike = Relevant | Ints | Sequence[Iterable[int]]


class Scores(NamedTuple):
    """Recalls are percentages, the others are between 0 and 1."""

    recall: Recalls
    """`recall@k` by k: queries with any relevant image among the first k (trec_eval's success)"""
    true_recall: Recalls
    """by k: the share of the relevant images among the first k, averaged over queries (trec_eval's recall)"""
    mrr: float
    """mean of 1 / rank of the first relevant image"""
    ndcg_at_10: float | None
    """gain 1 for each relevant image, discounted by log2(1 + rank)"""
    median_rank: float | None
    """of the first relevant image; None where half of the queries found none"""

    def as_json(self) -> dict[str, Any]:
        return self._asdict()


def scores_of(
    ranks: Ints, relevant: RelevantLike, cutoffs: Sequence[int] = CUTOFFS, num_beams: int | None = None
) -> Scores:
    """All measures from the ranks (P,) of the relevant pairs, `MISSED` if not found."""
    wanted = Relevant.of(relevant)
    best = _best(ranks, wanted)
    measurable = {k: num_beams is None or k <= num_beams for k in (*cutoffs, 10)}
    return Scores(
        recalls(best, cutoffs, num_beams),
        {str(k): _true_recall(ranks, wanted, k) if measurable[k] else None for k in cutoffs},
        mrr(best),
        _ndcg(ranks, wanted, 10) if measurable[10] else None,
        median_rank(best),
    )


def pair_ranks(ranked: Ints, relevant: RelevantLike) -> Ints:
    """(Q, K) rows, -1 pads → (P,) the rank, from 1, of each relevant pair, `MISSED` if it is not listed.

    If an image is listed twice, its first rank counts; its second entry still takes a rank.
    """
    wanted = Relevant.of(relevant)
    assert ranked.ndim == 2 and len(ranked) == wanted.num_queries, "one ranking per query"
    stride = int(max(ranked.max(initial=0), wanted.rows.max(initial=0))) + 1
    pairs = wanted.queries * stride + wanted.rows  # ascending
    query, place = np.nonzero(ranked >= 0)
    keys = query * stride + ranked[query, place]
    hit = np.isin(keys, pairs)
    ranks = np.full(len(pairs), MISSED, dtype=np.int64)
    np.minimum.at(ranks, np.searchsorted(pairs, keys[hit]), place[hit] + 1)
    return ranks


def recalls(ranks: Ints, cutoffs: Sequence[int] = CUTOFFS, num_beams: int | None = None) -> Recalls:
    """(Q,) ranks → recall@k by k, in percent; None for k above `num_beams`."""
    return {str(k): recall(ranks, k) if num_beams is None or k <= num_beams else None for k in cutoffs}


def recall(ranks: Ints, k: int) -> float:
    """(Q,) ranks → percentage of the queries whose best relevant image is among the first k."""
    return 100.0 * int((ranks <= k).sum()) / max(1, len(ranks))


def mrr(ranks: Ints) -> float:
    """Mean reciprocal rank, 0 for images that were not found."""
    return float(reciprocal(ranks).sum() / max(1, len(ranks)))


def reciprocal(ranks: Ints) -> Doubles:
    """1 / rank, 0 for images that were not found."""
    return np.where(ranks < MISSED, 1.0 / ranks, 0.0)


def discounted(ranks: Ints, k: int = 10) -> Doubles:
    """1 / log2(1 + rank) among the first k, else 0: the nDCG@k of a query with one relevant image."""
    within = ranks <= k
    return np.where(within, 1.0 / np.log2(1.0 + np.where(within, ranks, 1)), 0.0)


def median_rank(ranks: Ints) -> float | None:
    """None if the median query found nothing."""
    if not len(ranks):
        return None
    middle = np.sort(ranks)[[(len(ranks) - 1) // 2, len(ranks) // 2]]
    return None if middle[1] >= MISSED else float(middle.mean())


def _best(ranks: Ints, relevant: Relevant) -> Ints:
    best = np.full(relevant.num_queries, MISSED, dtype=np.int64)
    np.minimum.at(best, relevant.queries, ranks)
    return best


def _true_recall(ranks: Ints, relevant: Relevant, k: int) -> float:
    found = np.bincount(relevant.queries, ranks <= k, relevant.num_queries)
    return 100.0 * float((found / relevant.counts).sum() / max(1, relevant.num_queries))


def _ndcg(ranks: Ints, relevant: Relevant, k: int) -> float:
    ideal = np.cumsum(discounted(np.arange(1, k + 1), k))[np.minimum(relevant.counts, k) - 1]
    gained = np.bincount(relevant.queries, discounted(ranks, k), relevant.num_queries)
    return float((gained / ideal).sum() / max(1, relevant.num_queries))
