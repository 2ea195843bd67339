"""The approximate search against the exact one."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from genret.components.retrievers.hnsw import HNSW
from genret.errors import GenretError
from genret.search.dense import dense_search


def clustered(count: int, seed: int) -> Tensor:
    """(count, D) unit rows around 20 centres, which are always the same."""
    centres = torch.randn(20, 24, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    rows = centres[torch.randint(20, (count,), generator=generator)]
    return torch.nn.functional.normalize(rows + 0.5 * torch.randn(count, 24, generator=generator), dim=1)


@pytest.mark.parametrize("k", [1, 10, 100])
def test_nearly_all_nearest_images_are_found(k: int) -> None:
    pytest.importorskip("faiss")
    images, queries = clustered(2000, 1), clustered(60, 2)
    exact, found = dense_search(queries, images, k), HNSW(images).search(queries, k)
    assert found.rows.shape == found.scores.shape == (60, k)
    hits = (found.rows[:, :, None] == exact.rows[:, None, :]).any(1).float().mean()
    assert hits >= 0.95
    assert ((found.rows >= 0) & (found.rows < 2000)).all()
    assert all(len(set(row)) == k for row in found.rows.tolist()), "no image twice"
    scores = torch.einsum("qd,qkd->qk", queries, images[found.rows])
    torch.testing.assert_close(found.scores, scores, rtol=1e-5, atol=1e-5)
    assert (found.scores.diff(dim=1) <= 0).all()


def test_equal_images_come_in_order_and_gaps_are_marked() -> None:
    pytest.importorskip("faiss")
    images = torch.eye(4)[[1, 0, 0, 2]]
    found = HNSW(images).search(torch.eye(4)[[0]], 6)
    assert found.rows.tolist() == [[1, 2, 0, 3, -1, -1]]
    assert found.scores[0, :4].tolist() == [1, 1, 0, 0] and torch.isneginf(found.scores[0, 4:]).all()
    empty = HNSW(images[:0]).search(torch.eye(4), 2)
    assert empty.rows.shape == (4, 2) and (empty.rows == -1).all()


def test_without_faiss_one_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(GenretError, match=r"pip install 'genret\[faiss\]', or --set retriever.index=exact$"):
        HNSW(torch.eye(3))
