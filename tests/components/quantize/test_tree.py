"""Hierarchical k-means: invariants of the tree, and descending against a plain recursion."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genret.components.quantize.tree import grow

torch.set_num_threads(1)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def walk(tree, point):
    """The leaf below the nearest centroids and the path to it, by plain loops over Python numbers."""
    node, path = 0, []
    while children := [int(tree.first[node]) + code for code in range(int(tree.fan[node]))]:
        far = [float((tree.centroids[child] - point).square().sum()) for child in children]
        path.append(far.index(min(far)))
        node = children[path[-1]]
    return node, path


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 120), st.integers(2, 6), st.integers(1, 8), st.integers(0, 5), st.sampled_from([1, 3, 1000]))
def test_leaves_hold_few_points_or_equal_ones(num, branching, leaf_size, seed, different):
    x = torch.randn(min(num, different), 4, generator=seeded(seed))
    x = x[torch.randint(len(x), (num,), generator=seeded(seed))]
    tree, leaves = grow(x, branching, leaf_size, 5, seeded())
    nodes, paths = tree.paths()
    assert paths.shape == (len(nodes), tree.depth) and len(set(map(tuple, paths.tolist()))) == len(nodes)
    assert tree.leaf(paths).equal(nodes), "every path leads to its leaf"
    assert (tree.fan <= branching).all() and not (tree.fan == 1).any()
    assert int((tree.fan == 0).sum()) == len(nodes)
    assert set(leaves.tolist()) == set(nodes.tolist()), "no leaf is empty"
    for leaf in nodes.tolist():
        members = x[leaves == leaf]
        assert len(members) <= leaf_size or torch.cdist(members, members).max() < 1e-3
    children = torch.cat([torch.arange(int(f), int(f + n)) for f, n in zip(tree.first, tree.fan, strict=True)])
    assert children.tolist() == list(range(1, len(tree.fan))), "one parent each"


def test_descending_is_a_walk_to_the_nearest_child():
    x = torch.randn(300, 6, generator=seeded())
    tree, leaves = grow(x, 4, 5, 10, seeded())
    assert tree.depth >= 4
    new = torch.randn(50, 6, generator=seeded(1))
    for points in (x, new):
        paths = tree.descend(points)
        for point, path, leaf in zip(points, paths, tree.leaf(paths), strict=True):
            node, steps = walk(tree, point)
            assert node == int(leaf) and path.tolist() == steps + [0] * (tree.depth - len(steps))
    assert tree.leaf(tree.descend(x)).equal(leaves), "the points of the fit come back to their leaves"


def test_paths_that_are_none():
    tree, _ = grow(torch.randn(40, 3, generator=seeded()), 3, 4, 5, seeded())
    wrong = torch.full((3, tree.depth), 0)
    wrong[0, 0], wrong[1, 1], wrong[2, -1] = 3, -1, 99
    assert tree.leaf(wrong).tolist() == [-1, -1, -1]


@pytest.mark.parametrize("num", [1, 3])
def test_few_points_are_one_leaf(num):
    tree, leaves = grow(torch.randn(num, 3, generator=seeded()), 5, 3, 5, seeded())
    assert tree.depth == 0 and leaves.eq(0).all() and tree.paths()[1].shape == (1, 0)
    assert tree.descend(torch.randn(2, 3)).shape == (2, 0)


def test_growing_in_blocks_changes_nothing(monkeypatch):
    x = torch.randn(200, 5, generator=seeded())
    tree, _ = grow(x, 4, 5, 5, seeded())
    whole = tree.descend(x)
    monkeypatch.setattr("genret.components.quantize.tree.BLOCK", 64)
    assert tree.descend(x).equal(whole)
