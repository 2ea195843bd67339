"""The error ledger: where a generative retriever loses images that its encoder alone would have found.

It starts with the recall@k of the dense search, ends with the recall reached, and assigns every query between them to
exactly one cause: quantization → level 1 … level M → beam → collision → (recovered) → rerank. It counts whole queries,
so that sums are exact. A query counts as answered if any of its relevant images is among the first k; ranks are those
of the best placed one.

    Q queries   M levels   b beams   k cutoff
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from genret.kit.arrays import Floats, Ints

SHOWN_LEVELS = 8


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The result of each query. Ranks start at 1; the rank of a missing image exceeds every k."""

    dense_ranks: Ints
    """(Q,) of the positive in the dense search with the same features"""
    ceiling_ranks: Ints
    """(Q,) of the positive in the dense search by reconstructed features"""
    prefix_ranks: Ints
    """(Q, M) of the positive identifier's first m codes among the distinct prefixes that the beam kept at level m"""
    identifier_ranks: Ints
    """(Q,) of the positive identifier among those found"""
    image_ranks: Ints
    """(Q,) of the positive image among those found"""
    forced_scores: Floats
    """(Q,) log-probability of the positive identifier, reached by beams or not; -inf if unknown"""
    beam_scores: Floats
    """(Q, b) of the identifiers found, best first, -inf for none"""
    reranked_ranks: Ints | None = None
    """(Q,) of the positive image after reranking"""


class LedgerRow(NamedTuple):
    stage: str
    """`dense`, `quantization`, `level 1` …, `beam`, `collision`, `recovered`, `reached`, `rerank` or `final`"""
    queries: int
    """Queries answered; of a change, queries lost (negative: gained)."""
    points: float
    """The same in percent of all queries."""
    share: float | None
    """Of a change, in percent of the queries that the dense search answers; None if it answers none."""
    recall: float
    """recall@k after this row, in percent"""
    is_change: bool

    def as_json(self) -> dict[str, Any]:
        """`lost` is present only in rows that are changes."""
        lost = {"lost": self.points, "share": self.share} if self.is_change else {}
        return {"stage": self.stage, "queries": self.queries, "recall": self.recall} | lost


def ledger(trace: Trace, k: int) -> list[LedgerRow]:
    """Splits the difference between the dense recall@k and the recall@k reached, by cause.

    quantization  information lost in the codes: dense recall minus the quantization upper bound
    level m       the model preferred other codes: level m - 1 is the last one at which the positive prefix was among
                  the k best of its level
    beam          the positive identifier scores higher than the k-th found one but was pruned on the way
    collision     the positive identifier is among the k best, its image is displaced by others that share it
    recovered     (a gain) the quantization upper bound misses it, the model finds it
    rerank        (mostly a gain) reordering of the found images
    """
    assert k >= 1
    num_queries, num_levels = trace.prefix_ranks.shape
    ceiling, reached = trace.ceiling_ranks <= k, trace.image_ranks <= k
    dense = int((trace.dense_ranks <= k).sum())
    causes = attribute(trace, k)
    lost = np.bincount(causes[ceiling & ~reached], minlength=num_levels + 2)
    book = _Book(num_queries, dense)
    book.total("dense")
    book.change("quantization", dense - int(ceiling.sum()))
    for level in range(num_levels):
        book.change(f"level {level + 1}", int(lost[level]))
    book.change("beam", int(lost[num_levels]))
    book.change("collision", int(lost[num_levels + 1]))
    book.change("recovered", -int((reached & ~ceiling).sum()))
    assert book.answered == int(reached.sum()), "the ledger must count every query once"
    book.total("reached")
    if trace.reranked_ranks is not None:
        final = int((trace.reranked_ranks <= k).sum())
        book.change("rerank", book.answered - final)
    book.total("final")
    return book.rows


def attribute(trace: Trace, k: int) -> Ints:
    """(Q,) why each query's image is not among the first k: 0 … M-1 the level, M the beam, M+1 a collision.

    Defined only for queries whose image was missed.
    """
    num_levels, num_beams = trace.prefix_ranks.shape[1], trace.beam_scores.shape[1]
    found = trace.identifier_ranks <= num_beams
    # With fewer than k identifiers found, any other would have been among the k best.
    bar = trace.beam_scores[:, k - 1] if num_beams >= k else np.full(len(found), -np.inf, np.float32)
    pruned = ~found & (trace.forced_scores > bar)
    collision = trace.identifier_ranks <= k
    among_best = trace.prefix_ranks <= k  # (Q, M)
    levels = np.where(among_best, np.arange(1, num_levels + 1), 0).max(axis=1, initial=0)
    outranked = ~pruned & ~collision & (trace.image_ranks > k)
    assert not (levels[outranked] == num_levels).any() or num_levels == 0, (
        "an identifier that is among the k best at the last level is among the k best found"
    )
    causes = np.where(pruned, num_levels, levels)
    return np.where(collision, num_levels + 1, causes).astype(np.int64)


def folded(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For display: the rows (`LedgerRow.as_json`) of all levels after the eighth as one. Long identifiers have many,
    and lose little there."""
    deep = [row for row in rows if _level(row["stage"]) > SHOWN_LEVELS]
    if len(deep) < 2:
        return list(rows)
    first, last = deep[0], deep[-1]
    shares = [row["share"] for row in deep]
    together = last | {
        "stage": f"level {_level(first['stage'])} to {_level(last['stage'])}",
        "queries": sum(row["queries"] for row in deep),
        "lost": sum(row["lost"] for row in deep),
        "share": None if None in shares else sum(shares),
    }
    place = rows.index(first)
    return [*rows[:place], together, *rows[place + len(deep) :]]


def _level(stage: str) -> int:
    word, _, number = stage.partition(" ")
    return int(number) if word == "level" and number.isdecimal() else 0


class _Book:
    """Rows with the remaining recall after each."""

    def __init__(self, num_queries: int, dense: int):
        self.rows: list[LedgerRow] = []
        self.answered = dense
        self._dense = dense
        self._num_queries = num_queries

    def total(self, stage: str) -> None:
        recall = self._percent(self.answered)
        self.rows.append(LedgerRow(stage, self.answered, recall, None, recall, False))

    def change(self, stage: str, lost: int) -> None:
        self.answered -= lost
        share = 100.0 * lost / self._dense if self._dense else None
        self.rows.append(LedgerRow(stage, lost, self._percent(lost), share, self._percent(self.answered), True))

    def _percent(self, queries: int) -> float:
        return 100.0 * queries / max(1, self._num_queries)
