"""Significance of differences between two runs: paired resampling over queries, without distributional assumptions.

Smucker, Allan and Carterette, "A Comparison of Statistical Significance Tests for Information Retrieval Evaluation"
(CIKM 2007), recommend both. Input: figures per query; output: p-values and intervals.

Q queries   C columns (figures, or differences of figures, of the same queries)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from genret.kit.arrays import Doubles

ROUNDS = 10_000
"""Number of resamplings. The smallest possible p-value is 1 / (ROUNDS + 1)."""
CHUNK = 4_000_000
"""Maximum number of random numbers in memory."""


def randomization_test(differences: Doubles, rounds: int = ROUNDS, seed: int = 0) -> Doubles:
    """(Q, C) paired differences → (C,) two-sided p-values of Fisher's randomization test.

    Under the null hypothesis each difference could have either sign: p is the share of random sign flips, the observed
    signs included, whose mean is at least as far from 0 as the observed mean.
    """
    observed = np.abs(differences.sum(axis=0))
    rows = differences[np.any(differences != 0, axis=1)]  # a sign flip does not change 0
    as_far = np.zeros(differences.shape[1], np.int64)
    random = np.random.default_rng(seed)
    for size in _chunks(rounds, len(rows)):
        signs = random.integers(0, 2, (size, len(rows)), dtype=np.int8).astype(np.float64) * 2 - 1
        as_far += (np.abs(signs @ rows) >= observed * (1 - 1e-9) - 1e-12).sum(axis=0)  # sums round differently
    return (as_far + 1) / (rounds + 1)


def bootstrap_intervals(values: Doubles, level: float = 0.95, rounds: int = ROUNDS, seed: int = 0) -> Doubles:
    """(Q, C) → (C, 2) percentile bootstrap confidence intervals of the means; queries are sampled with replacement."""
    random = np.random.default_rng(seed)
    num_queries = len(values)
    means = []
    for size in _chunks(rounds, num_queries):
        drawn = random.integers(0, num_queries, (size, num_queries)) + np.arange(size)[:, None] * num_queries
        counts = np.bincount(drawn.ravel(), minlength=size * num_queries).reshape(size, num_queries)
        means.append(counts @ values / num_queries)
    return np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2], axis=0).T


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of one family of tests, adjusted to control the family-wise error rate."""
    adjusted, highest = list(p_values), 0.0
    for place, test in enumerate(sorted(range(len(p_values)), key=lambda test: p_values[test])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[test]))
        adjusted[test] = highest
    return adjusted


def _chunks(rounds: int, width: int) -> Iterator[int]:
    size = max(1, CHUNK // max(1, width))
    yield from (min(size, rounds - start) for start in range(0, rounds, size))
