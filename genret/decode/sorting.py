"""Rows of token ids → the levels of a trie, by sorting packed integer keys; no loops over rows, no recursion.

A row's tokens become small ranks. As many as fit share one 64-bit word with the row's number, so that one plain sort of
integers orders the rows and gives their old positions. Levels are then read off the sorted keys, last one first.
Uses only numpy.

    R rows   L positions   U distinct rows   N_d prefixes of d tokens   C_d distinct tokens in position d
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from genret.kit.arrays import Array

BLOCK = 1 << 16
"""Rows per block where a column has to be widened: as many as fit into a processor's cache."""


class Level(NamedTuple):
    """The edges from the nodes of depth d to those of depth d + 1: tensors; arrays while a trie is built."""

    offsets: Any
    """(N_d + 1,) int32: the children of node n are the nodes offsets[n] .. offsets[n + 1] - 1 of depth d + 1"""
    symbols: Any
    """(N_{d+1},) each child's token as an index into `columns`: uint8, int16 or int32, the smallest that fits"""
    columns: Any
    """(C_d,) int64 ascending: the tokens that occur in position d; the first is -1 where some identifier has ended"""


def build_levels(tokens: Array) -> tuple[list[Level], Array]:
    """tokens (R, L) integers, -1 after the end → levels, and the leaf of each row (R,) int32.

    Working memory is 8 bytes a row for every word of key (one for 10 million rows of four codes out of 1024), 8 more
    for sorting if there are several words, and 4 for the result.
    """
    columns = columns_of(tokens)
    words, widths = pack(tokens, columns)
    words, leaf_of_row = unique(words, len(tokens))
    return peel(words, widths, columns), leaf_of_row


def columns_of(tokens: Array) -> list[Array]:
    """The tokens that occur, ascending (C_d,), for each position that any row reaches; -1 if some row has ended."""
    if not tokens.size:
        return []
    assert int(tokens.min()) >= -1
    seen = np.zeros((tokens.shape[1], int(tokens.max()) + 2), dtype=bool)
    for start in range(0, len(tokens), BLOCK):
        block = tokens[start : start + BLOCK]
        for flags, column in zip(seen, block.T, strict=True):
            flags[column] = True  # -1 is the last entry
        assert not ((block[:, :-1] < 0) & (block[:, 1:] >= 0)).any(), "-1 may only stand after an identifier's end"
    columns = [np.flatnonzero(np.roll(flags, 1)) - 1 for flags in seen]
    return columns[: sum(bool(column[-1] >= 0) for column in columns)]


def pack(tokens: Array, columns: list[Array]) -> tuple[list[Array], list[list[int]]]:
    """Rows as integers with the same lexicographic order: uint64 words, the most significant first, later positions in
    lower bits; and per word, the bits of each of its positions. Every word has room for a row's number.
    """
    room = 64 - row_bits(len(tokens))
    widths: list[list[int]] = []
    ranks = []
    for column in columns:
        width = (len(column) - 1).bit_length()
        if not widths or sum(widths[-1]) + width > room:
            widths.append([])
        widths[-1].append(width)
        ranks.append(np.zeros(int(column[-1]) + 2, dtype=np.uint64))  # by token; -1 is the last entry
        ranks[-1][column] = np.arange(len(column), dtype=np.uint64)
    words = [np.zeros(len(tokens), dtype=np.uint64) for _ in widths]
    for start in range(0, len(tokens), BLOCK):
        block = zip(ranks, tokens[start : start + BLOCK].T, strict=False)
        for word, own in zip(words, widths, strict=True):
            part = word[start : start + BLOCK]
            for width, (rank, column) in zip(own, block, strict=False):
                part <<= np.uint64(width)
                part |= rank[column]
    return words, widths


def unique(words: list[Array], num_rows: int) -> tuple[list[Array], Array]:
    """Words of R rows, which it overwrites → the distinct ones in order (U,), and the index of each row among them."""
    if not words:
        return words, np.zeros(num_rows, dtype=np.int32)
    words, order = sort(words, num_rows)
    first = changes(words)
    leaf = np.cumsum(first, dtype=np.int32)
    leaf -= 1
    leaf_of_row = np.empty(num_rows, dtype=np.int32)
    leaf_of_row[order] = leaf
    return words if first.all() else [word[first] for word in words], leaf_of_row


def sort(words: list[Array], num_rows: int) -> tuple[list[Array], Array]:
    """Words of R rows, which it overwrites → the same in order, and the row that each came from.

    Least significant word first, as in radix sort: the current position, in a word's free bits, makes sorting stable.
    """
    free = np.uint64(row_bits(num_rows))
    order: Array | None = None
    for word in reversed(words):
        key: Array = word if len(words) == 1 else word.copy() if order is None else word[order]
        key <<= free
        key |= np.arange(num_rows, dtype=np.uint64)
        key.sort()
        place = (key & np.uint64((1 << int(free)) - 1)).astype(np.uint32)
        order = place if order is None else order[place]
        key >>= free
    assert order is not None
    return [key, *(word[order] for word in words[1:])], order


def changes(words: list[Array]) -> Array:
    """(U,) where a key differs from the one before it; True at the first."""
    changed = np.zeros(len(words[0]), dtype=bool)
    changed[:1] = True
    for word in words:
        changed[1:] |= word[1:] != word[:-1]
    return changed


def peel(words: list[Array], widths: list[list[int]], columns: list[Array]) -> list[Level]:
    """Distinct words in order → levels. Removes one position after the other from the words, which it overwrites."""
    levels: list[Level] = []
    left = list(columns)
    for own in reversed(widths):
        for width in reversed(own):
            column = left.pop().astype(np.int64)
            symbols = (words[-1] & np.uint64((1 << width) - 1)).astype(symbol_type(len(column)))
            words[-1] >>= np.uint64(width)
            starts = np.flatnonzero(changes(words))
            levels.append(Level(np.append(starts, len(symbols)).astype(np.int32), symbols, column))
            words = [word[starts] for word in words]
        words.pop()
    return levels[::-1]


def row_bits(num_rows: int) -> int:
    return max(1, (num_rows - 1).bit_length())


def symbol_type(size: int) -> Any:
    """The smallest integer type for 0 .. size - 1 that every torch operation supports."""
    return np.uint8 if size <= 1 << 8 else np.int16 if size <= 1 << 15 else np.int32
