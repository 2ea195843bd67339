"""Counts of runs against counts of masks."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genret.decode.leaf_sets import LeafSets


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_counts_are_those_of_the_masks(data):
    num_leaves = data.draw(st.integers(1, 20))
    masks = [
        np.array(data.draw(st.lists(st.booleans(), min_size=num_leaves, max_size=num_leaves)))
        for _ in range(data.draw(st.integers(1, 4)))
    ]
    masks = [masks[data.draw(st.integers(0, len(masks) - 1))] for _ in range(data.draw(st.integers(1, 4)))]
    sets = LeafSets.of(masks)
    leaves = torch.arange(num_leaves + 1, dtype=torch.int32).expand(len(masks), -1)
    expected = [np.concatenate([[0], np.cumsum(mask)]).tolist() for mask in masks]
    assert sets.count_before(leaves).tolist() == expected
    alone = len({id(mask) for mask in masks}) == 1
    assert len(sets.starts) == (1 if alone else len(masks)), "what all have in common is there once"
    assert sets.starts.dtype == sets.before.dtype == torch.int32
    width = sets.starts.shape[1]
    assert width & (width - 1) == 0 and width <= num_leaves + 1


def test_what_is_left_out_of_a_large_trie_is_small():
    mask = np.ones(1_000_000, dtype=bool)
    mask[[5, 6, 400_000]] = False
    sets = LeafSets.of([mask])
    assert sets.starts.nbytes + sets.before.nbytes < 100
    assert sets.count_before(torch.tensor([[5, 7, 8, 1_000_000]], dtype=torch.int32)).tolist() == [[5, 5, 6, 999_997]]
