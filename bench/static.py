"""A reimplementation of STATIC (Su et al., arXiv 2602.22647), to compare genret's search with.

Written from the paper and the behaviour of its public code, without copying any of it. The trie is a state machine. Its
first two levels are dense tables over codes; the rest is one sparse matrix in compressed rows: row pointers by state,
and for each edge a pair (code, next state), so that the edges of a state are contiguous. A step computes
log-probabilities over all V codes, reads as many edges of each beam's state as any state of that level has, masks those
beyond the state's own, and keeps the best. Identifiers have one length and are given sorted.

    N identifiers   L length   V codes   B queries   b beams   E edges   w most edges of a state
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Logits = Callable[[int, int], Tensor]
"""(level, beams per query: 1 or b) → (B, beams, V)"""


class StaticIndex(NamedTuple):
    first: Tensor
    """(V,) bool, the codes that may begin"""
    second: Tensor
    """(V, V) bool, which codes may follow them"""
    states: Tensor
    """(V, V) int32, the state that two codes lead to"""
    pointers: Tensor
    """(states + 1,) int32, where the edges of a state begin"""
    edges: Tensor
    """(E + V, 2) int32, code and next state; the last V are padding, read and masked"""
    widths: list[int]
    """(L,) the most edges of a state before code l"""

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in self if isinstance(t, Tensor))

    def to(self, device: torch.device) -> StaticIndex:
        first, second, states, pointers, edges, widths = self
        first, second, states = first.to(device), second.to(device), states.to(device)
        return StaticIndex(first, second, states, pointers.to(device), edges.to(device), widths)


def sort_rows(codes: np.ndarray, vocab_size: int) -> np.ndarray:
    """(N, L) rows in lexicographic order, as the index needs them: by one integer key per row."""
    bits = (vocab_size - 1).bit_length()
    key = np.zeros(len(codes), dtype=np.int64)
    for column in codes.T:
        key = key << bits | column
    key.sort()
    length = codes.shape[1]
    columns = [(key >> bits * (length - 1 - level) & (1 << bits) - 1).astype(np.int32) for level in range(length)]
    return np.stack(columns, axis=1)


def build(rows: np.ndarray, vocab_size: int) -> StaticIndex:
    """rows (N, L) int32, sorted, no two alike."""
    count, length = rows.shape
    assert length > 2, "the first two levels are dense"
    # The prefix that ends with level d of a row is new where any code up to d differs from the row's before.
    is_new = np.ones((length, count), dtype=bool)
    for level in range(length):
        is_new[level, 1:] = rows[1:, level] != rows[:-1, level]
        if level:
            is_new[level] |= is_new[level - 1]
    # State c + 1: the prefix of the one code c. Longer prefixes follow, in order, level by level; 0: the end.
    state_of = [rows[:, 0] + 1]
    levels = [(1, vocab_size + 1)]
    for level in range(1, length - 1):
        start = levels[-1][1]
        state_of.append((start - 1 + np.cumsum(is_new[level], dtype=np.int32)).astype(np.int32))
        levels.append((start, int(state_of[-1][-1]) + 1))
    parents, labels, targets = [], [], []
    for level in range(1, length):
        here = is_new[level]
        parents.append(state_of[level - 1][here])
        labels.append(rows[here, level])
        targets.append(state_of[level][here] if level < length - 1 else np.zeros(len(labels[-1]), dtype=np.int32))
    first = np.zeros(vocab_size, dtype=bool)
    first[rows[:, 0]] = True
    second, states = np.zeros((vocab_size,) * 2, dtype=bool), np.zeros((vocab_size,) * 2, dtype=np.int32)
    here = is_new[1]
    second[rows[here, 0], rows[here, 1]] = True
    states[rows[here, 0], rows[here, 1]] = state_of[1][here]

    degree = np.bincount(np.concatenate(parents), minlength=levels[-1][1])
    pointers = np.concatenate([[0], np.cumsum(degree)]).astype(np.int32)
    padding = np.zeros(vocab_size, dtype=np.int32)
    edges = np.stack([np.concatenate([*labels, padding]), np.concatenate([*targets, padding])], axis=1)
    widths = [int(first.sum()), *(int(degree[start:stop].max()) for start, stop in levels)]
    head = torch.from_numpy(first), torch.from_numpy(second), torch.from_numpy(states)
    return StaticIndex(*head, torch.from_numpy(pointers), torch.from_numpy(edges), widths)


@torch.inference_mode()
def search(index: StaticIndex, logits: Logits, num_beams: int) -> tuple[Tensor, Tensor]:
    """→ codes (B, b, L) and scores (B, b), best first. Needs at least b identifiers below the best prefixes."""
    minus = torch.tensor(-torch.inf, device=index.first.device)
    level = logits(0, 1)[:, 0].log_softmax(-1)
    scores, codes = torch.where(index.first, level, minus).topk(num_beams)
    batch = len(scores)
    written = [codes]
    states = codes  # of the dense part: the code itself
    for depth in range(1, len(index.widths)):
        level = logits(depth, num_beams).log_softmax(-1).flatten(0, 1)  # (B b, V)
        state = states.flatten()
        if depth == 1:
            gains, follows = torch.where(index.second[state], level, minus).topk(min(num_beams, level.shape[1]))
            leads = index.states[state[:, None], follows]
        else:
            start, stop = index.pointers[state.long()], index.pointers[state.long() + 1]
            reach = torch.arange(index.widths[depth], device=state.device)
            burst = index.edges[(start[:, None] + reach).clamp_max(len(index.edges) - 1)]  # (B b, w, 2)
            follows, leads = burst[..., 0].long(), burst[..., 1]
            gains = torch.where(reach < (stop - start)[:, None], level.gather(1, follows), minus)
        width = gains.shape[1]
        candidates = (scores[..., None] + gains.view(batch, num_beams, width)).flatten(1)
        scores, kept = candidates.topk(num_beams)
        parents = kept // width
        written = [earlier.gather(1, parents) for earlier in written]
        written.append(follows.view(batch, -1).gather(1, kept))
        states = leads.view(batch, -1).gather(1, kept)
    return torch.stack(written, dim=2), scores
