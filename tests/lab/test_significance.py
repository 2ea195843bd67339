"""Resampling tests against scipy's, against exact enumeration, and against what they promise."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from genret.lab.compare.significance import bootstrap_intervals, holm, randomization_test

stats = pytest.importorskip("scipy.stats")


def some_differences(num_queries: int, shift: float, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    reciprocal = random.normal(shift, 0.4, num_queries)
    hits = random.choice([-1.0, 0.0, 1.0], num_queries, p=[0.2 - shift, 0.6, 0.2 + shift])
    return np.stack([reciprocal, hits], axis=1)


@pytest.mark.parametrize("shift", [0.0, 0.03, 0.08])
def test_randomization_is_scipys(shift: float) -> None:
    differences = some_differences(300, shift)
    theirs = stats.permutation_test(
        (differences,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        n_resamples=10_000,
        rng=np.random.default_rng(1),
        axis=0,
    ).pvalue
    assert randomization_test(differences) == pytest.approx(theirs, abs=0.02)


def test_randomization_is_what_all_signs_give() -> None:
    differences = np.array([0.5, -0.25, 1.0, 0.5, 0.0, -0.5, 1 / 3, 1.0])[:, None]
    sums = [abs(float(np.dot(signs, differences[:, 0]))) for signs in product((-1, 1), repeat=len(differences))]
    exact = np.mean([found >= abs(differences.sum()) - 1e-12 for found in sums])
    assert randomization_test(differences, rounds=50_000)[0] == pytest.approx(exact, abs=0.01)


def test_alike_runs_differ_by_chance_only() -> None:
    assert randomization_test(np.zeros((50, 2))).tolist() == [1.0, 1.0]
    assert randomization_test(np.ones((50, 1)), rounds=999)[0] == pytest.approx(0.001)
    found = [randomization_test(some_differences(80, 0, seed), rounds=400, seed=seed) for seed in range(200)]
    assert (np.array(found) < 0.1).mean(axis=0) == pytest.approx([0.1, 0.1], abs=0.06), "10 % false alarms at p < 0.1"


def test_bootstrap_is_scipys() -> None:
    values = np.stack([some_differences(250, 0.05)[:, 0], np.random.default_rng(3).random(250) < 0.3], axis=1)
    for column, (low, high) in enumerate(bootstrap_intervals(values)):
        theirs = stats.bootstrap(
            (values[:, column],), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(2)
        ).confidence_interval
        assert (low, high) == pytest.approx(tuple(theirs), abs=0.009)
        assert low < values[:, column].mean() < high


def test_chunks_and_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    from genret.lab.compare import significance

    differences = some_differences(100, 0.05)
    assert (randomization_test(differences) == randomization_test(differences)).all(), "the same seed, the same figures"
    whole = bootstrap_intervals(differences)
    monkeypatch.setattr(significance, "CHUNK", 1_000)
    assert bootstrap_intervals(differences) == pytest.approx(whole, abs=0.01)
    assert randomization_test(differences, rounds=25).shape == (2,)


def test_holm_is_the_textbooks() -> None:
    """Holm (1979): the smallest is multiplied by the number of tests, the next by one less, never falling."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.8, 0.9]) == [1.0, 1.0] and holm([]) == []
