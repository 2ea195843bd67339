"""A stored run's figures for a page: with intervals, baselines, and by beams.

Q queries   C columns
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from genret.evaluate.metrics import CUTOFFS, MISSED, Recalls, Scores, recalls, scores_of
from genret.evaluate.ranks import QueryRanks
from genret.kit.arrays import Ints
from genret.lab.compare.paired import paired
from genret.lab.compare.run_summary import MEASURES, measured
from genret.lab.compare.significance import bootstrap_intervals, randomization_test
from genret.lab.report.stored import StoredRun

K = max(CUTOFFS)
"""The cutoff of the ledger and the summary."""
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class FigureRow:
    """One search method. Recalls are percentages; missing figures are None."""

    name: str
    recall: Recalls
    intervals: dict[str, Interval]
    """95 % bootstrap confidence intervals of the recalls, by cutoff"""
    mrr: float | None = None
    ndcg: float | None = None
    """nDCG@10"""
    median_rank: float | None = None
    is_main: bool = False


class Difference(NamedTuple):
    """The run's R@K minus that of its encoder's two-tower search, in points."""

    points: float
    interval: Interval
    p: float
    """Fisher's randomization test, two-sided"""


class Figures(NamedTuple):
    rows: list[FigureRow]
    difference: Difference | None
    """None if the run is a two-tower search, or has no figures"""


def _row(
    name: str, recall: Recalls, intervals: dict[str, Interval], scores: Scores, is_main: bool = False
) -> FigureRow:
    found = {"mrr": scores.mrr, "ndcg": scores.ndcg_at_10, "median_rank": scores.median_rank}
    return FigureRow(name=name, recall=recall, intervals=intervals, is_main=is_main, **found)


def figures_of(stored: StoredRun) -> Figures:
    """All figures on the searched split; may be empty."""
    evaluation = stored.evaluation
    if evaluation is None:
        return Figures([], None)
    kept = {f"generated, {width} beams": ranks for width, ranks in stored.by_num_beams.items()}
    widths: dict[str, int | None] = dict(zip(kept, stored.by_num_beams, strict=True))
    if stored.own_search is not None:
        kept["searched"] = stored.own_search
    if stored.two_tower is not None:
        kept["two-tower"] = stored.two_tower
    intervals = _intervals(kept, widths)
    main = "searched" if stored.num_beams is None else f"generated, {stored.num_beams} beams"
    rows = [] if main in kept else [FigureRow(name=main, recall=evaluation["recall"], intervals={}, is_main=True)]
    for name, found in kept.items():
        if name == "two-tower":
            continue
        scores = scores_of(found.ranks, np.arange(len(found.ranks)), num_beams=widths.get(name))
        # stored figures if present, the same that other commands show
        recall = evaluation["recall"] if name == main else scores.recall
        rows.append(_row(name, recall, intervals[name], scores, is_main=name == main))
    more = {
        "first_stage": "  before reranking",
        "reranked": f"  the images of {stored.num_beams} beams in dense order",
        "identifier_recall": f"  identifiers instead of images, {stored.num_beams} beams",
        "ceiling": "ceiling of the identifiers",
    }
    alone = evaluation.get("drowned_out")
    if alone is not None:
        rows.append(
            FigureRow(name="  the language model drowned out, guidance alone", recall=alone["recall"], intervals={})
        )
        if alone["first_stage"] is not None:
            name = "  the language model drowned out, before reranking"
            rows.append(FigureRow(name=name, recall=alone["first_stage"], intervals={}))
    for key, name in more.items():
        if evaluation.get(key) is not None:
            rows.append(FigureRow(name=name, recall=evaluation[key], intervals={}))
    if stored.num_beams is None and evaluation["recall"] == evaluation["two_tower"]:
        return Figures(rows, None)  # both are the same search
    last = FigureRow(
        name="two-tower, same encoder", recall=evaluation["two_tower"], intervals=intervals.get("two-tower", {})
    )
    if (dense := stored.two_tower) is not None:
        scores = scores_of(dense.ranks, np.arange(len(dense.ranks)))
        last = _row(last.name, last.recall, last.intervals, scores)
    rows.append(last)
    return Figures(rows, _difference(stored))


def _intervals(kept: Mapping[str, QueryRanks], widths: Mapping[str, int | None]) -> dict[str, dict[str, Interval]]:
    """Intervals of all methods from the same resamples of queries."""
    rows = paired(list(kept.values())) if kept else None
    if rows is None:
        return {name: {} for name in kept}
    columns = [measured(row, widths.get(name))[:, : len(CUTOFFS)] for name, row in zip(kept, rows, strict=True)]
    bounds = iter(bootstrap_intervals(np.concatenate(columns, axis=1)).tolist())
    found = {name: {str(k): next(bounds) for k in CUTOFFS} for name in kept}
    return {
        name: {k: (low, high) for k, (low, high) in one.items() if not np.isnan(low)} for name, one in found.items()
    }


def _difference(stored: StoredRun) -> Difference | None:
    if stored.found is None or stored.two_tower is None:
        return None
    rows = paired([stored.found, stored.two_tower])
    if rows is None or np.array_equal(rows[0], rows[1]) or (stored.num_beams is not None and stored.num_beams < K):
        return None
    column = MEASURES.index(f"recall@{K}")
    ours, theirs = (measured(row, None)[:, [column]] for row in rows)
    values = ours - theirs
    low, high = bootstrap_intervals(values)[0].tolist()
    return Difference(float(values.mean()), (low, high), float(randomization_test(values)[0]))


def curve(stored: StoredRun, k: int) -> list[tuple[int, float]]:
    """recall@k by beams (the paper's Table 7), for evaluated beam widths of at least k."""
    points: dict[int, float] = {}
    for width, figures in ((stored.evaluation or {}).get("by_num_beams") or {}).items():
        if (value := figures.get(str(k))) is not None:
            points[int(width)] = value
    for width, found in stored.by_num_beams.items():
        value = recalls(found.ranks, (k,), width)[str(k)]
        if width not in points and value is not None:
            points[width] = value
    return sorted(points.items())


def place(rank: int) -> int | None:
    """A rank as a JSON value."""
    return None if rank >= MISSED else int(rank)


def ranks_in_order(found: QueryRanks, queries: Ints) -> Ints | None:
    """(Q,) hashes of queries → their ranks; None if the stored queries differ."""
    order, asked = np.argsort(found.queries, kind="stable"), np.argsort(queries, kind="stable")
    if not np.array_equal(found.queries[order], queries[asked]):
        return None
    ranks = np.empty(len(queries), np.int64)
    ranks[asked] = found.ranks[order]
    return ranks
