"""The assignment problem against every permutation, and against scipy on larger ones."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genret.kit.matching import match


def total(costs, columns):
    return float(sum(costs[row, column] for row, column in enumerate(columns.tolist()) if column >= 0))


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.data())
def test_no_permutation_is_cheaper(n, m, data):
    costs = torch.tensor(data.draw(st.lists(st.integers(-5, 5), min_size=n * m, max_size=n * m))).view(n, m).double()
    closed = data.draw(st.sets(st.integers(0, m - 1)))
    costs[:, sorted(closed)] = torch.inf
    columns = match(costs)
    chosen = [column for column in columns.tolist() if column >= 0]
    left = sorted(set(range(m)) - closed)
    assert len(set(chosen)) == len(chosen) == min(n, len(left)) and not closed & set(chosen)
    if len(left) >= n:
        cheapest = min(sum(float(costs[r, c]) for r, c in enumerate(p)) for p in itertools.permutations(left, n))
    else:
        cheapest = min(
            sum(float(costs[r, c]) for r, c in zip(p, left, strict=True))
            for p in itertools.permutations(range(n), len(left))
        )
    assert total(costs, columns) == pytest.approx(cheapest)


@pytest.mark.parametrize(("n", "m"), [(60, 60), (40, 100), (100, 40)])
def test_equals_scipy(n, m):
    scipy = pytest.importorskip("scipy.optimize")
    costs = torch.rand(n, m, generator=torch.Generator().manual_seed(0))
    rows, columns = scipy.linear_sum_assignment(costs.numpy())
    assert total(costs, match(costs)) == pytest.approx(float(costs[rows, columns].sum()), rel=1e-5)


def test_no_columns_and_no_rows():
    assert match(torch.full((2, 3), torch.inf)).tolist() == [-1, -1]
    assert match(torch.zeros(0, 3)).tolist() == []
