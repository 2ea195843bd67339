"""Measures against ir_measures (which calls trec_eval), and by hand."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import RR, R, Success, nDCG

from genret.evaluate import metrics
from genret.evaluate.metrics import MISSED, Relevant, median_rank, mrr, pair_ranks, recall, recalls, scores_of

ROWS = 15


def summarize(ranked, relevant, **options):
    """All measures of rankings (Q, K); -1 pads."""
    return scores_of(pair_ranks(ranked, relevant), relevant, **options)


def best_ranks(ranked, relevant):
    wanted = Relevant.of(relevant)
    return metrics._best(pair_ranks(ranked, wanted), wanted)


def true_recall(ranked, relevant, k):
    return summarize(ranked, relevant, cutoffs=(k,)).true_recall[str(k)]


def ndcg(ranked, relevant):
    return summarize(ranked, relevant).ndcg_at_10


@st.composite
def rankings(draw):
    num_queries = draw(st.integers(1, 5))
    width = draw(st.integers(1, 12))
    ranked = np.full((num_queries, width), -1)
    for query in range(num_queries):
        found = draw(st.lists(st.integers(0, ROWS - 1), max_size=width, unique=True))
        ranked[query, : len(found)] = found
    relevant = [draw(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=4)) for _ in range(num_queries)]
    return ranked, relevant


@settings(deadline=None, max_examples=100)
@given(rankings())
def test_equal_ir_measures(case):
    ranked, relevant = case
    run = {
        f"q{q}": {f"d{row}": float(-place) for place, row in enumerate(rows) if row >= 0}
        for q, rows in enumerate(ranked)
    }
    qrels = {f"q{q}": {f"d{row}": 1 for row in rows} for q, rows in enumerate(relevant)}
    measures = [Success @ 1, Success @ 5, Success @ 10, R @ 5, RR, nDCG @ 10]
    found = {}
    for metric in ir_measures.iter_calc(measures, qrels, run):
        found.setdefault(metric.measure, []).append(metric.value)
    expected = {measure: sum(found.get(measure, [])) / len(relevant) for measure in measures}
    ranks = best_ranks(ranked, relevant)
    assert recall(ranks, 1) == pytest.approx(100 * expected[Success @ 1])
    assert recall(ranks, 5) == pytest.approx(100 * expected[Success @ 5])
    assert recall(ranks, 10) == pytest.approx(100 * expected[Success @ 10])
    assert true_recall(ranked, relevant, 5) == pytest.approx(100 * expected[R @ 5])
    assert mrr(ranks) == pytest.approx(expected[RR])
    assert ndcg(ranked, relevant) == pytest.approx(expected[nDCG @ 10])


def test_by_hand():
    ranked = np.array([[4, 2, 9], [1, 3, -1], [0, -1, -1], [-1, -1, -1]])
    relevant = [[9, 2], [3], [5], [0]]
    ranks = best_ranks(ranked, relevant)
    assert ranks.tolist() == [2, 2, MISSED, MISSED]
    assert recalls(ranks) == {"1": 0.0, "5": 50.0, "10": 50.0}
    assert true_recall(ranked, relevant, 2) == 100 * (1 / 2 + 1) / 4
    assert mrr(ranks) == (1 / 2 + 1 / 2) / 4
    log = np.log2
    gained = (1 / log(3) + 1 / log(4)) / (1 + 1 / log(3)) + 1 / log(3)
    assert ndcg(ranked, relevant) == pytest.approx(gained / 4)


def test_recall_beyond_the_beams_is_not_measured():
    assert recalls(np.array([1, 7]), num_beams=5) == {"1": 50.0, "5": 50.0, "10": None}
    scores = summarize(np.array([[3, 1], [2, 3]]), [[3], [3]], num_beams=1)
    assert scores.recall == {"1": 50.0, "5": None, "10": None} == scores.true_recall
    assert scores.mrr == 0.75 and scores.median_rank == 1.5


def test_an_image_listed_or_judged_twice_counts_once():
    ranked = np.array([[7, 7, 3, 3]])
    assert true_recall(ranked, [[7, 3, 3]], 2) == 50.0
    assert ndcg(ranked, [[3, 7]]) == pytest.approx((1 + 1 / np.log2(4)) / (1 + 1 / np.log2(3)))
    assert Relevant.of([[3, 3, 1]]).rows.tolist() == [1, 3]


def test_median_rank():
    assert median_rank(np.array([1, 9, 4])) == 4.0
    assert median_rank(np.array([1, 2, 5, MISSED])) == 3.5
    assert median_rank(np.array([1, 2, MISSED, MISSED])) is None
    assert median_rank(np.zeros(0, dtype=np.int64)) is None


def test_one_relevant_row_per_query():
    ranked = np.array([[5, 1], [0, 2]])
    assert best_ranks(ranked, np.array([1, 0])).tolist() == best_ranks(ranked, [[1], [0]]).tolist() == [2, 1]


def test_nothing_found_and_nothing_asked():
    assert best_ranks(np.zeros((2, 0), dtype=np.int64), [[0], [1]]).tolist() == [MISSED, MISSED]
    empty = summarize(np.zeros((0, 3), dtype=np.int64), [])
    assert empty.recall["1"] == 0.0 and empty.mrr == 0.0


def test_queries_without_answers_are_refused():
    with pytest.raises(AssertionError, match="needs a relevant image"):
        best_ranks(np.array([[1]]), [[]])
