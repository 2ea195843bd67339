"""Exact dense search against a full sort, ties included."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genret.search import dense
from genret.search.dense import dense_ranks, dense_search


@pytest.mark.parametrize("seed", range(5))
def test_search_and_ranks_equal_a_full_stable_sort(seed, monkeypatch):
    monkeypatch.setattr(dense, "QUERIES", 7)
    monkeypatch.setattr(dense, "IMAGES", 5)
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randint(-2, 3, (20, 3), generator=generator).float()  # small integers: many ties
    images = torch.randint(-2, 3, (23, 3), generator=generator).float()
    order = (queries @ images.T).sort(dim=1, descending=True, stable=True)
    found = dense_search(queries, images, 30)
    assert torch.equal(found.rows[:, :23], order.indices) and (found.rows[:, 23:] == -1).all()
    assert torch.equal(found.scores[:, :23], order.values)
    relevant = torch.randint(0, 23, (20,), generator=generator)
    place = (order.indices == relevant[:, None]).float().argmax(1) + 1
    assert np.array_equal(dense_ranks(queries, images, relevant.numpy()), place.numpy())


def test_nothing_to_search():
    assert dense_search(torch.zeros(0, 4), torch.zeros(3, 4), 2).rows.shape == (0, 2)
    assert (dense_search(torch.zeros(2, 4), torch.zeros(0, 4), 2).rows == -1).all()
