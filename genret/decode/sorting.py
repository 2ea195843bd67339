"""Rows of token ids → the levels of a trie, by sorting packed integer keys; neither loops over rows nor recursion.

A row's tokens become small ranks, and as many of them as fit share one 64-bit word with the row's number, so that one
plain sort of integers orders the rows and says where they were. Levels then peel off the sorted keys, last one first.
Knows numpy only.

    R rows   L positions   U different rows   N_d prefixes of d tokens   C_d different tokens in position d
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
BLOCK = 1 << 16
"""Rows that are looked at together where a column has to be widened: what fits into a processor's cache."""


class Flat(NamedTuple):
    """`genret.decode.trie.Level` in numpy."""

    offsets: Array
    symbols: Array
    columns: Array


class Keys(NamedTuple):
    """Rows as integers that order as the rows do, lexicographically."""

    words: list[Array]
    """uint64, the most significant first; later positions in lower bits"""
    bits: list[list[int]]
    """Per word, the bits of each of its positions"""


def build_levels(tokens: Array) -> tuple[list[Flat], Array]:
    """tokens (R, L) integers, -1 after the end → levels, and the leaf of each row (R,) int32.

    The work memory is 8 bytes a row for every word of key (one for 10 million rows of four codes out of 1024), 8 more
    for sorting where there are several, and 4 for the answer.
    """
    columns = columns_of(tokens)
    keys = pack(tokens, columns)
    keys, leaf_of_row = unique(keys, len(tokens))
    return peel(keys, columns), leaf_of_row


def columns_of(tokens: Array) -> list[Array]:
    """Per position that any row reaches, the tokens that occur, ascending (C_d,); -1 where some row has ended."""
    if not tokens.size:
        return []
    assert int(tokens.min()) >= -1
    seen = np.zeros((tokens.shape[1], int(tokens.max()) + 2), dtype=bool)
    for block in blocks(tokens):
        for flags, column in zip(seen, block.T, strict=True):
            flags[column] = True  # -1 is the last place
        assert not ((block[:, :-1] < 0) & (block[:, 1:] >= 0)).any(), "-1 may only stand after an identifier's end"
    columns = [np.flatnonzero(np.roll(flags, 1)) - 1 for flags in seen]
    return columns[: sum(bool(column[-1] >= 0) for column in columns)]


def pack(tokens: Array, columns: list[Array]) -> Keys:
    """Leaves room in every word for the number of a row."""
    room = 64 - row_bits(len(tokens))
    bits: list[list[int]] = []
    for column in columns:
        width = (len(column) - 1).bit_length()
        if not bits or sum(bits[-1]) + width > room:
            bits.append([])
        bits[-1].append(width)
    words = [np.zeros(len(tokens), dtype=np.uint64) for _ in bits]
    # Each position's table gives its bits at their place in the word.
    tables: list[list[Array]] = []
    at = 0
    for widths in bits:
        tables.append([])
        shift = sum(widths)
        for width in widths:
            shift -= width
            table = np.zeros(int(columns[at][-1]) + 2, dtype=np.uint64)
            table[columns[at]] = np.arange(len(columns[at]), dtype=np.uint64) << np.uint64(shift)
            tables[-1].append(table)
            at += 1
    start = 0
    for block in blocks(tokens):
        stop, at = start + len(block), 0
        for word, parts in zip(words, tables, strict=True):
            for table in parts:
                word[start:stop] |= table[block[:, at]]
                at += 1
        start = stop
    return Keys(words, bits)


def unique(keys: Keys, num_rows: int) -> tuple[Keys, Array]:
    """Keys of R rows, which it consumes → the different ones in order (U,), and the place of each row among them."""
    if not keys.words:
        return keys, np.zeros(num_rows, dtype=np.int32)
    words, order = sort(keys.words, num_rows)
    first = changes(words)
    leaf = np.cumsum(first, dtype=np.int32)
    leaf -= 1
    leaf_of_row = np.empty(num_rows, dtype=np.int32)
    leaf_of_row[order] = leaf
    return Keys(words if first.all() else [word[first] for word in words], keys.bits), leaf_of_row


def sort(words: list[Array], num_rows: int) -> tuple[list[Array], Array]:
    """Words of R rows, which it consumes → the same in order, and the row that each came from.

    Least significant word first, as a radix sort does: the place so far, in a word's free bits, makes sorting stable.
    """
    free = np.uint64(row_bits(num_rows))
    order: Array | None = None
    for word in reversed(words):
        key: Array = word if len(words) == 1 else word.copy() if order is None else word[order]
        key <<= free
        for start in range(0, num_rows, BLOCK):
            part = key[start : start + BLOCK]
            part |= np.arange(start, start + len(part), dtype=np.uint64)
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


def peel(keys: Keys, columns: list[Array]) -> list[Flat]:
    """Different keys in order → levels. Takes one position after the other off the keys, which it consumes."""
    words = list(keys.words)
    levels: list[Flat] = []
    position = len(columns)
    for widths in reversed(keys.bits):
        for index in reversed(range(len(widths))):
            position -= 1
            width = np.uint64(widths[index])
            symbols = (words[-1] & np.uint64((1 << int(width)) - 1)).astype(symbol_type(len(columns[position])))
            if index:
                words[-1] >>= width
            else:
                words.pop()
            starts = np.flatnonzero(changes(words)) if words else np.zeros(1, dtype=np.int64)
            offsets = np.append(starts, len(symbols)).astype(np.int32)
            words = [word[starts] for word in words]
            levels.append(Flat(offsets, symbols, columns[position].astype(np.int64)))
    return levels[::-1]


def row_bits(num_rows: int) -> int:
    return max(1, (num_rows - 1).bit_length())


def symbol_type(size: int) -> Any:
    """The smallest integer type for 0 .. size - 1 that every torch operation knows."""
    return np.uint8 if size <= 1 << 8 else np.int16 if size <= 1 << 15 else np.int32


def blocks(tokens: Array) -> Iterator[Array]:
    for start in range(0, len(tokens), BLOCK):
        yield tokens[start : start + BLOCK]
