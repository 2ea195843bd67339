"""Adds identifiers to the levels of a trie or removes some: linear passes, without sorting again.

Uses only numpy and `genret.decode.sorting.Level`.

    U leaves   N_d nodes of depth d   V_d of the added trie   C_d different tokens in position d
"""

from __future__ import annotations

import numpy as np

from genret.decode.sorting import Level, symbol_type
from genret.kit.arrays import Array


def merge(old: list[Level], new: list[Level]) -> tuple[list[Level], Array, Array]:
    """The levels of both, neither of them empty, and the new leaf of each old leaf (U,) and each added one (V,), int32.

    Nodes are merged depth by depth. An added node either equals an old one or is inserted before one: `place` (V_d,) is
    that old node, and `absent` (V_d,) is True if it is inserted.
    """
    depth = max(len(old), len(new))
    old, new = deepened(old, depth), deepened(new, depth)
    place, absent = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=bool)
    levels = []
    for before, added in zip(old, new, strict=True):
        columns = np.union1d(before.columns, added.columns)
        before, added = recoloured(before, columns), recoloured(added, columns)
        below, is_new = descend(before, added, place, absent)
        symbols = np.insert(before.symbols, below[is_new], added.symbols[is_new])

        children = np.diff(before.offsets)
        owner = np.repeat(np.arange(len(place)), np.diff(added.offsets))  # the parent of each added child
        more = np.bincount(owner[is_new], minlength=len(place))
        np.add.at(children, place[~absent], more[~absent])
        children = np.insert(children, place[absent], more[absent])
        levels.append(Level(offsets_of(children), symbols, columns))
        place, absent = below, is_new
    shift = np.cumsum(np.bincount(place[absent], minlength=len(old[-1].symbols) + 1), dtype=np.int32)
    leaves = np.arange(len(shift) - 1, dtype=np.int32) + shift[:-1]
    moved = place + np.cumsum(absent) - absent  # after the nodes that are inserted before it
    return levels, leaves, moved.astype(np.int32)


def descend(old: Level, new: Level, place: Array, absent: Array) -> tuple[Array, Array]:
    """One depth further: the (V_{d+1},) `place` and `absent` of the added trie's nodes there."""
    owner = np.repeat(np.arange(len(place)), np.diff(new.offsets))
    low, known = old.offsets[place[owner]].astype(np.int64), ~absent[owner]
    end = np.where(known, old.offsets.take(place[owner] + 1, mode="clip"), low)
    high = end
    while (low < high).any():  # a binary search among each old node's children
        middle = (low + high) // 2
        less = old.symbols.take(middle, mode="clip") < new.symbols
        low, high = np.where((low < high) & less, middle + 1, low), np.where((low < high) & ~less, middle, high)
    found = known & (low < end) & (old.symbols.take(low, mode="clip") == new.symbols)
    return low, ~found


def prune(levels: list[Level], kept: Array) -> list[Level]:
    """kept (U,) bool → the levels of these leaves alone."""
    pruned: list[Level] = []
    for level in reversed(levels):
        counts = np.add.reduceat(kept, level.offsets[:-1], dtype=np.int32)
        symbols = level.symbols[kept]
        kept = counts > 0
        used = np.bincount(symbols, minlength=len(level.columns)) > 0
        own = Level(offsets_of(counts[kept]), symbols, level.columns)
        pruned.append(recoloured(own, level.columns[used]))
    return [level for level in reversed(pruned) if (level.columns >= 0).any()]  # the longest identifiers may be gone


def offsets_of(counts: Array) -> Array:
    """Number of children per node (N,) → where the children of each node begin, and the end (N + 1,)."""
    return np.append(0, np.cumsum(counts)).astype(np.int32)


def deepened(levels: list[Level], depth: int) -> list[Level]:
    """Appends levels at which every identifier has ended."""
    size = len(levels[-1].symbols)
    ended = Level(np.arange(size + 1, dtype=np.int32), np.zeros(size, dtype=np.uint8), np.array([-1]))
    return levels + [ended] * (depth - len(levels))


def recoloured(level: Level, columns: Array) -> Level:
    """The level with its token indices into other `columns`, which must contain all tokens that its nodes use."""
    if np.array_equal(columns, level.columns):
        return level
    table = np.searchsorted(columns, level.columns).astype(symbol_type(len(columns)))
    return Level(level.offsets, table[level.symbols], columns)
