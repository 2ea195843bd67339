"""Which queries a report shows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as some

from genret.evaluate.metrics import MISSED
from genret.lab.report.queries import choose

RANKS = some.one_of(some.integers(1, 30), some.just(MISSED))


def test_the_worst_are_those_that_only_generation_loses() -> None:
    ranks, dense = np.array([1, MISSED, MISSED, 7, 1]), np.array([1, 50, 1, 2, 40])
    assert choose(ranks, dense, np.arange(5), 3) == ([2, 1], [4])
    assert choose(ranks, dense, np.array([0, 1, 1, 2, 3]), 4) == ([2, 3], [4, 0]), "one query of each image"
    assert choose(np.ones(3, np.int64), np.ones(3, np.int64), np.arange(3), 2) == ([], [0, 1])
    assert choose(ranks, dense, np.arange(5), 0) == ([], [])


@given(some.lists(some.tuples(RANKS, RANKS, some.integers(0, 4)), min_size=1, max_size=20), some.integers(0, 12))
def test_ends_of_the_order(rows: list[tuple[int, int, int]], count: int) -> None:
    ranks, dense, images = (np.array(column) for column in zip(*rows, strict=True))
    worst, best = choose(ranks, dense, images, count)
    shown = worst + best
    assert len(shown) <= count and len({images[row] for row in shown}) == len(shown)
    assert all(ranks[row] > 1 for row in worst) and all(ranks[row] <= 10 for row in best)
    if worst:
        assert ranks[worst[0]] == max(ranks)
        assert list(ranks[worst]) == sorted(ranks[worst], reverse=True)
    assert list(ranks[best]) == sorted(ranks[best])
