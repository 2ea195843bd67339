"""Sets of leaves that a search may reach, one for each query or one for all, as runs of consecutive leaves.

Filters and common prefixes give few runs, so the cost in a search does not depend on the size of the trie.

    B queries   U leaves   m maximum number of runs, a power of two   n requested leaves
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class LeafSets(NamedTuple):
    starts: Tensor
    """(B or 1, m) int32, ascending: where each run begins; the first is 0, even if that run is empty"""
    before: Tensor
    """(B or 1, m + 1) int32: number of leaves of the set before each run, and in total"""

    @classmethod
    def of(cls, masks: Sequence[NDArray[np.bool_]]) -> LeafSets:
        """Each query's mask (U,) over all leaves; the same object is processed once, one for all is stored once."""
        runs = {id(mask): runs_of(mask) for mask in {id(mask): mask for mask in masks}.values()}
        masks = masks[:1] if len(runs) == 1 else masks
        width = 1 << (max(len(starts) for starts, _ in runs.values()) - 1).bit_length()  # few different shapes
        starts = np.empty((len(masks), width), dtype=np.int32)
        before = np.empty((len(masks), width + 1), dtype=np.int32)
        for row, mask in enumerate(masks):
            own, counts = runs[id(mask)]
            starts[row, : len(own)], starts[row, len(own) :] = own, len(mask)
            before[row, : len(counts)], before[row, len(counts) :] = counts, counts[-1]
        return cls(torch.from_numpy(starts), torch.from_numpy(before))

    def to(self, device: torch.device) -> LeafSets:
        return LeafSets(self.starts.to(device), self.before.to(device))

    def count_before(self, leaves: Tensor) -> Tensor:
        """leaves (B, n) int32, 0 .. U → number of leaves of each query's set before each, (B, n) int32."""
        shape = leaves.shape
        if len(self.starts) == 1:
            leaves = leaves.reshape(1, -1)
        run = torch.searchsorted(self.starts, leaves.contiguous(), right=True) - 1
        first = self.before.gather(1, run)
        size = self.before.gather(1, run + 1) - first
        return (first + torch.minimum(leaves - self.starts.gather(1, run), size)).view(shape)

    def at(self, queries: Tensor, places: Tensor) -> Tensor:
        """queries (n,) int64, places (n,) int32 → (n,) int32 the leaf at that place, from 0, of the query's set."""
        rows = queries if len(self.starts) > 1 else torch.zeros_like(queries)
        run = torch.searchsorted(self.before[rows], places[:, None], right=True)[:, 0] - 1
        return self.starts[rows, run] + places - self.before[rows, run]


def runs_of(mask: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(U,) → where its runs of True begin, after an empty one at 0, and the number of True before each and in total."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    starts, sizes = edges[::2], edges[1::2] - edges[::2]
    return np.append(0, starts), np.concatenate([[0, 0], np.cumsum(sizes)])
