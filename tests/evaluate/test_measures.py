"""genret, ir_measures (trec_eval), ranx and arithmetic by hand say the same, where it is hard: equal scores, images of
one identifier, images listed and judged twice, queries with several answers and with none found."""

from __future__ import annotations

from math import log2
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import RR, R, Success, nDCG

from genret.evaluate.metrics import MISSED, Scores, pair_ranks, scores_of
from genret.lab.trec import write_qrels, write_run
from genret.search.ranking import LeafImages, Ranked, rank_images

IDS = [f"image {letter}" for letter in "abcdefgh"]


def summarize(ranked: Any, relevant: Any) -> Scores:
    """All measures of rankings (Q, K); -1 pads."""
    return scores_of(pair_ranks(ranked, relevant), relevant)


def collisions() -> Ranked:
    """Two queries, four beams. Identifier 0 is a's and b's and e's, identifier 1 is c's, 2 is d's and a's, 3 is f's.

    Query 0: identifiers 1 and 0 of equal score, then 2, whose `a` has been mentioned. Query 1: 3 alone.
    """
    leaf_images = LeafImages.build(np.array([0, 0, 0, 1, 2, 2, 3]), np.array([0, 1, 4, 2, 3, 0, 5]), 4)
    leaves = np.array([[1, 0, 2, -1], [3, -1, -1, -1]])
    scores = np.array([[-1.0, -1.0, -2.0, -np.inf], [-0.5, -np.inf, -np.inf, -np.inf]], np.float32)
    nearer = {0: 0.1, 1: 0.3, 2: 0.2, 3: 0.0, 4: 0.1, 5: 0.0}
    return rank_images(leaves, scores, leaf_images, lambda _, images: np.array([nearer[i] for i in images.tolist()]))


RELEVANT = [[4, 3, 3], [2]]
"""Query 0 is answered by e and d (judged twice), query 1 by c, which is not found."""


def test_by_hand() -> None:
    ranked = collisions()
    # b, c (nearer first among equals), a before e (equally near: the first in the catalog), then d
    assert ranked.images.tolist() == [[1, 2, 0, 4, 3], [5, -1, -1, -1, -1]]
    found = summarize(ranked.images, RELEVANT)
    assert found.recall == {"1": 0.0, "5": 50.0, "10": 50.0}
    assert found.true_recall == {"1": 0.0, "5": 50.0, "10": 50.0}
    assert found.mrr == (1 / 4) / 2 and found.median_rank is None
    assert found.ndcg_at_10 == pytest.approx((1 / log2(5) + 1 / log2(6)) / (1 + 1 / log2(3)) / 2)
    assert pair_ranks(ranked.images, RELEVANT).tolist() == [5, 4, MISSED]


def by_ir_measures(run: Path, qrels: Path, num_queries: int) -> Scores:
    """trec_eval's figures over all queries: one that found nothing has none of its own and counts as 0."""
    measures = [*(Success @ k for k in (1, 5, 10)), *(R @ k for k in (1, 5, 10)), RR, nDCG @ 10]
    sums: dict[Any, float] = dict.fromkeys(measures, 0.0)
    read = ir_measures.read_trec_qrels(str(qrels)), ir_measures.read_trec_run(str(run))
    for one in ir_measures.iter_calc(measures, *read):
        sums[one.measure] += one.value / num_queries
    recall, true = ({str(k): 100 * sums[of @ k] for k in (1, 5, 10)} for of in (Success, R))
    return Scores(recall, true, sums[RR], sums[nDCG @ 10], None)


def by_ranx(run: Path, qrels: Path, num_queries: int) -> Scores:
    ranx = pytest.importorskip("ranx")
    names = ["hit_rate", "recall"]
    wanted = [*(f"{name}@{k}" for name in names for k in (1, 5, 10)), "mrr", "ndcg@10"]
    judged = ranx.Qrels.from_file(str(qrels), kind="trec")
    found = ranx.evaluate(judged, ranx.Run.from_file(str(run), kind="trec"), wanted, make_comparable=True)
    recall, true = ({str(k): 100 * found[f"{name}@{k}"] for k in (1, 5, 10)} for name in names)
    return Scores(recall, true, found["mrr"], found["ndcg@10"], None)


def same(ours: Scores, theirs: Scores) -> None:
    for name, value in theirs._asdict().items():
        if value is not None:
            assert getattr(ours, name) == pytest.approx(value, abs=1e-6), name


def written(folder: Path, ranked: Ranked, relevant: list[list[int]]) -> tuple[Path, Path, int]:
    queries = [f"q{row}" for row in range(len(relevant))]
    images = [[IDS[image] for image in row if image >= 0] for row in ranked.images.tolist()]
    scores = [row[: len(ids)] for row, ids in zip(ranked.scores.tolist(), images, strict=True)]
    write_run(folder / "run", queries, images, scores, "genret")
    write_qrels(folder / "qrels", queries, [[IDS[row] for row in rows] for rows in relevant])
    return folder / "run", folder / "qrels", len(queries)


def test_ir_measures_agrees(tmp_path: Path) -> None:
    same(summarize(collisions().images, RELEVANT), by_ir_measures(*written(tmp_path, collisions(), RELEVANT)))


@pytest.mark.slow  # ranx compiles its measures first
@pytest.mark.filterwarnings("ignore::Warning")
def test_ranx_agrees(tmp_path: Path) -> None:
    same(summarize(collisions().images, RELEVANT), by_ranx(*written(tmp_path, collisions(), RELEVANT)))
    for seed in range(20):
        folder = tmp_path / str(seed)
        ranked, relevant = at_random(np.random.default_rng(seed))
        ours, files = summarize(ranked.images, relevant), written(folder, ranked, relevant)
        same(ours, by_ranx(*files))
        same(ours, by_ir_measures(*files))


def at_random(random: np.random.Generator) -> tuple[Ranked, list[list[int]]]:
    """Few images, fewer identifiers, even fewer scores: collisions and ties everywhere."""
    num_queries, num_leaves = int(random.integers(1, 6)), int(random.integers(1, 5))
    leaf_of_row = np.concatenate([np.arange(num_leaves), random.integers(0, num_leaves, 6)])
    leaf_images = LeafImages.build(leaf_of_row, random.integers(0, len(IDS), len(leaf_of_row)), num_leaves)
    leaves = np.stack([random.permutation(num_leaves) for _ in range(num_queries)])
    scores = -np.sort(random.integers(0, 3, leaves.shape), axis=1).astype(np.float32)
    relevant = [random.integers(0, len(IDS), random.integers(1, 4)).tolist() for _ in range(num_queries)]
    return rank_images(leaves, scores, leaf_images), relevant


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_ir_measures_agrees_at_random(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    ranked, relevant = at_random(np.random.default_rng(seed))
    files = written(tmp_path_factory.mktemp("trec"), ranked, relevant)
    same(summarize(ranked.images, relevant), by_ir_measures(*files))


def test_ranks_alone_say_all_that_rankings_say() -> None:
    """A dense search's rankings are never written down, only the ranks of what is relevant."""
    random = np.random.default_rng(0)
    ranked = np.stack([random.permutation(40) for _ in range(30)])
    relevant = [random.choice(40, random.integers(1, 5), replace=False).tolist() for _ in range(30)]
    place = np.argsort(ranked, axis=1) + 1
    ranks = np.concatenate([place[query, sorted(rows)] for query, rows in enumerate(relevant)])
    assert scores_of(ranks, relevant) == summarize(ranked, relevant)
    best = sorted(min(place[query, row] for row in rows) for query, rows in enumerate(relevant))
    assert scores_of(ranks, relevant).median_rank == (best[14] + best[15]) / 2
