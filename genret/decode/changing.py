"""Levels of a trie with identifiers added or taken away: linear passes over what there is, nothing is sorted anew.

Knows numpy and `genret.decode.sorting.Flat`.

    U leaves   N_d nodes of depth d   V_d of the added trie   C_d different tokens in position d
"""

from __future__ import annotations

import numpy as np

from genret.decode.sorting import Array, Flat, symbol_type


def merge(old: list[Flat], new: list[Flat]) -> tuple[list[Flat], Array, Array]:
    """The levels of both, and the leaf that each old leaf (U,) and each new one (V,) becomes, int32.

    Nodes are merged depth by depth. A new node is either an old one or stands before one: `place` (V_d,) is that old
    node, and `absent` (V_d,) says which of the two.
    """
    if not old or not new:
        size = len((old or new)[-1].symbols) if old or new else 0
        leaves = np.arange(size, dtype=np.int32)
        return old or new, leaves[: size if old else 0], leaves[: size if new else 0]
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
        owner = np.repeat(np.arange(len(place)), np.diff(added.offsets))  # each new child's new parent
        more = np.bincount(owner[is_new], minlength=len(place))
        np.add.at(children, place[~absent], more[~absent])
        children = np.insert(children, place[absent], more[absent])
        levels.append(Flat(offsets_of(children), symbols, columns))
        place, absent = below, is_new
    shift = np.cumsum(np.bincount(place[absent], minlength=len(old[-1].symbols) + 1), dtype=np.int32)
    leaves = np.arange(len(shift) - 1, dtype=np.int32) + shift[:-1]
    moved = place + np.cumsum(absent) - absent  # behind what is inserted before it
    return levels, leaves, moved.astype(np.int32)


def descend(old: Flat, new: Flat, place: Array, absent: Array) -> tuple[Array, Array]:
    """One depth further: the (V_{d+1},) `place` and `absent` of the added trie's nodes there."""
    owner = np.repeat(np.arange(len(place)), np.diff(new.offsets))
    low, known = old.offsets[place[owner]].astype(np.int64), ~absent[owner]
    end = np.where(known, old.offsets[np.minimum(place[owner] + 1, len(old.offsets) - 1)], low)
    high = end
    while (low < high).any():  # a binary search among each old node's children
        middle = (low + high) // 2
        less = old.symbols[np.minimum(middle, len(old.symbols) - 1)] < new.symbols
        low, high = np.where((low < high) & less, middle + 1, low), np.where((low < high) & ~less, middle, high)
    found = known & (low < end) & (old.symbols[np.minimum(low, len(old.symbols) - 1)] == new.symbols)
    return low, ~found


def prune(levels: list[Flat], kept: Array) -> list[Flat]:
    """kept (U,) bool → the levels of these leaves alone."""
    pruned: list[Flat] = []
    for level in reversed(levels):
        counts = np.add.reduceat(kept, level.offsets[:-1], dtype=np.int32)
        symbols = level.symbols[kept]
        kept = counts > 0
        used = np.bincount(symbols, minlength=len(level.columns)) > 0
        flat = Flat(offsets_of(counts[kept]), symbols, level.columns)
        pruned.append(recoloured(flat, level.columns[used]))
    pruned.reverse()
    if not levels or not kept.any():
        return []
    while not (pruned[-1].columns >= 0).any():  # the longest are gone
        pruned.pop()
    return pruned


def offsets_of(counts: Array) -> Array:
    """How many children each node has (N,) → where those of each begin, and the end (N + 1,)."""
    return np.append(0, np.cumsum(counts)).astype(np.int32)


def deepened(levels: list[Flat], depth: int) -> list[Flat]:
    """With levels at which every identifier has ended."""
    size = len(levels[-1].symbols)
    ended = Flat(np.arange(size + 1, dtype=np.int32), np.zeros(size, dtype=np.uint8), np.array([-1]))
    return levels + [ended] * (depth - len(levels))


def recoloured(level: Flat, columns: Array) -> Flat:
    """The level with its tokens' places in other `columns`, which have all that its nodes use."""
    if np.array_equal(columns, level.columns):
        return level
    table = np.searchsorted(columns, level.columns).astype(symbol_type(len(columns)))
    return Flat(level.offsets, table[level.symbols], columns)
