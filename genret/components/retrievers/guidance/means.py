"""The vectors that guidance compares with a query: for a prefix of several identifiers, the mean of those below it.

If code vectors add up to an image's vector (residual quantization), every identifier is a point, the sum of its codes'
vectors. A node with one identifier below it needs no vector: its codes give the point exactly. A node with several has
the mean of their points. Of the mean a query that has come to the node knows the prefix's own vectors, so only the
rest is stored: as it is at depths with few such nodes, else as the sum of `STAGES` vectors from books fitted to that
depth (residual quantization once more), a byte each. So a search looks up children of its beams alone, and its cost
does not depend on the catalog's size.

    U leaves   N_d nodes of depth d   n those with several leaves   M levels with vectors   C_d columns   D width
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from genret.decode.changing import deepened, descend, recoloured
from genret.decode.sorting import Level
from genret.decode.trie import Trie, take

CHUNK = 16_384
"""Number of leaves whose points are computed at a time."""
VECTORS = 4_096
"""A depth with at most so many nodes of several leaves keeps their means as vectors."""
STAGES = 8
"""Bytes of a coded mean."""
BOOK = 256
SAMPLE = 8_192
"""Number of nodes that the books of a depth are fitted to."""
ROUNDS = 5
"""Of k-means."""
SAMPLE_LEAVES = 16
"""Number of leaves of such a node that its mean is taken of."""


class Several(NamedTuple):
    """A depth's nodes with several leaves, in order; each is a row of the tables of means."""

    ids: Tensor | None
    """(n,) int32 the nodes, if they are few among their depth's"""
    bits: Tensor | None
    """(⌈N_d / 8⌉,) uint8 else: a bit for each node of the depth, set for these, the lowest first"""
    before: Tensor | None
    """(⌈N_d / 8⌉,) int32: how many there are before each byte"""

    @classmethod
    def of(cls, several: Tensor) -> Several:
        """several (N_d,) bool"""
        ids = several.nonzero()[:, 0].int()
        if 32 * len(ids) <= 5 * len(several):  # four bytes for each of them, or five for eight nodes of the depth
            return cls(ids, None, None)
        rows = torch.nn.functional.pad(several, (0, -len(several) % 8)).view(-1, 8)
        bits = (rows.int() << torch.arange(8, device=rows.device)).sum(1).to(torch.uint8)
        counts = rows.sum(1)
        return cls(None, bits, (counts.cumsum(0) - counts).int())

    def rows(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """nodes (...) → the row of each, arbitrary if it is not among them, and whether it is (...) bool."""
        if self.ids is not None:
            place = torch.searchsorted(self.ids, nodes, out_int32=True).clamp_max_(len(self.ids) - 1)
            return place, take(self.ids, place) == nodes
        assert self.bits is not None and self.before is not None
        byte, place = nodes >> 3, (nodes & 7).long()
        bits = take(self.bits, byte).long()
        lower = take(_ones(nodes.device), bits & ((1 << place) - 1))
        return take(self.before, byte) + lower, (bits >> place) & 1 == 1


class Means(NamedTuple):
    """The means of one depth, less the prefix's own vectors."""

    several: Several
    vectors: Tensor
    """(n, D), or (STAGES · BOOK, D) the books of coded ones"""
    codes: Tensor | None
    """(n, STAGES) uint8, None for vectors"""
    half_squares: Tensor
    """(n,) ½ ‖mean‖² of the whole mean, as it is stored"""


class Points:
    """Everything that guidance looks up in one trie."""

    def __init__(
        self,
        trie: Trie,
        books: Sequence[Tensor],
        level_tokens: Sequence[Tensor | None],
        before: Points | None = None,
        stored: Mapping[str, Tensor] | None = None,
    ):
        """books: per level (K, D), of which `level_tokens[d]` are the tokens, in the same order. `before`: of another
        trie of the same books; what both have in common is copied. `stored`: the `tables` of equal points; raises
        `KeyError` or `ValueError` if they are not."""
        assert trie.depth >= len(books), "each level's codes have tokens"
        self.trie = trie
        self.vectors = [
            _of_columns(level.columns, books[d], level_tokens[d], d) if d < len(books) else None
            for d, level in enumerate(trie.levels)
        ]
        """Per level (C_d, D) the vectors of its columns; None for levels without"""
        self.width = books[0].shape[1]
        self.alone = next(d + 1 for d in range(trie.depth) if trie.num_prefixes[d] == trie.num_leaves)
        """From this depth on, every node is the only one above its leaf and has its number."""
        later = [level.symbols for level in trie.levels[self.alone : len(books)]]
        self.tail = torch.stack(later, dim=1) if later else None
        """(U, M − alone) the columns of each leaf's later codes"""
        self.half_squares = torch.empty(trie.num_leaves, device=trie.device)
        """(U,) ½ ‖point‖²"""
        self.means: list[Means | None]
        """Entry d: of depth d + 1; None if no node has several leaves"""
        if stored is not None:
            self.half_squares = stored["half_squares"]
            self.means = [_means_in(stored, d) for d in range(self.alone - 1)]
            if len(self.half_squares) != trie.num_leaves:
                raise ValueError("these are another trie's")
            return
        same = None if before is None else common(before.trie, trie)
        unknown = torch.arange(trie.num_leaves, device=trie.device)
        if before is not None and same is not None:
            there = same[-1] >= 0
            self.half_squares[there] = before.half_squares[same[-1][there]]
            unknown = unknown[~there]
        for leaves in unknown.split(CHUNK):
            self.half_squares[leaves] = 0.5 * self.points_of(leaves).square().sum(1)
        self.means = [self._averaged(depth, before, same) for depth in range(1, self.alone)]

    @property
    def nbytes(self) -> int:
        """Bytes of the tables that grow with the catalog or may."""
        tail = 0 if self.tail is None else self.tail.nbytes
        return tail + sum(table.nbytes for table in self.tables().values())

    def tables(self) -> dict[str, Tensor]:
        """By name, what it takes time to make."""
        found = {"half_squares": self.half_squares}
        for d, means in enumerate(self.means):
            if means is not None:
                named = means.several._asdict() | means._asdict()
                found |= {f"{d}.{name}": table for name, table in named.items() if isinstance(table, Tensor)}
        return found

    def points_of(self, leaves: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """leaves (n,) → (n, D) the sums of their codes' vectors of levels `start` to `stop` - 1, by default all."""
        points = torch.zeros(len(leaves), self.width, device=leaves.device)
        for own, columns in list(zip(self.vectors, self.columns_of(leaves), strict=True))[start:stop]:
            if own is not None:
                points += own.index_select(0, columns)
        return points

    def columns_of(self, leaves: Tensor) -> list[Tensor]:
        """leaves (n,) → per level (n,) int64 the columns of their codes."""
        found: list[Tensor] = []
        nodes = leaves.int()
        for d, level in reversed(list(enumerate(self.trie.levels))):
            found.insert(0, take(level.symbols, nodes).long())
            if d < self.alone:  # deeper down, a node's parent has its number
                nodes = torch.searchsorted(level.offsets, nodes, right=True, out_int32=True) - 1
        return found

    # ------------------------------------------------------------------------------------------------------ building
    def _averaged(self, depth: int, before: Points | None, same: list[Tensor] | None) -> Means | None:
        """The means of a depth."""
        nodes = torch.arange(self.trie.num_prefixes[depth - 1], dtype=torch.int32, device=self.trie.device)
        low, high = self.trie.leaf_range(nodes, depth)
        found = high - low > 1
        if not bool(found.any()):
            return None
        low, high, coded = low[found].long(), high[found].long(), int(found.sum()) > VECTORS
        made = torch.zeros_like(low, dtype=torch.bool)  # rows that are known from before
        old = None if before is None or depth >= before.alone else before.means[depth - 1]
        if before is not None and same is not None and old is not None and (old.codes is not None) == coded:
            rows, made = before._unchanged(depth, same[depth - 1][found], same[-1], low, high, old)
            rows = rows[made]
        else:
            old = None
        books = None if not coded else self._fitted(depth, low, high) if old is None else old.vectors
        codes = low.new_empty(len(low), STAGES, dtype=torch.uint8) if coded else None
        vectors = self.half_squares.new_empty(0 if coded else len(low), self.width)
        half_squares = torch.empty(len(low), device=low.device)
        if old is not None:
            half_squares[made] = old.half_squares[rows]
            if codes is not None and old.codes is not None:
                codes[made] = old.codes[rows]
            else:
                vectors[made] = old.vectors[rows]
        todo = (~made).nonzero()[:, 0]
        for some, rest in self._rests(depth, low[todo], high[todo]):
            own = todo[some]
            if codes is not None and books is not None:
                codes[own] = encoded = encode(rest, books)
                rest = decode(encoded, books)
            else:
                vectors[own] = rest
            half_squares[own] = 0.5 * (self.points_of(low[own], stop=depth) + rest).square().sum(1)
        return Means(Several.of(found), vectors if books is None else books, codes, half_squares)

    def _unchanged(
        self, depth: int, nodes: Tensor, leaves: Tensor, low: Tensor, high: Tensor, means: Means
    ) -> tuple[Tensor, Tensor]:
        """nodes (n,) of a later trie as they were numbered here, -1 for new ones, with leaves low .. high - 1 there, of
        which leaves (U',) are known here → the row of each, arbitrary if its leaves are not the same; if they are."""
        rows, there = means.several.rows(nodes.clamp_min(0).int())
        first, end = self.trie.leaf_range(nodes.clamp_min(0).int(), depth)
        known = torch.nn.functional.pad((leaves >= 0).cumsum(0), (1, 0))
        kept = known[high] - known[low]
        return rows.long(), there & (nodes >= 0) & (kept == high - low) & (end - first == kept)

    def _rests(self, depth: int, low: Tensor, high: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Leaves low .. high - 1 of each node (n,) → for some nodes at a time, the means (., D) of what their leaves'
        codes add from level `depth` on."""
        sizes = high - low
        _, groups = torch.unique_consecutive((sizes.cumsum(0) - 1) // CHUNK, return_counts=True)
        first = 0
        for count in groups.tolist():
            rows = slice(first, first + count)
            owner = torch.repeat_interleave(sizes[rows])
            leaves = (
                torch.arange(len(owner), device=low.device) - (sizes[rows].cumsum(0) - sizes[rows] - low[rows])[owner]
            )
            rest = None
            for own, some in zip(owner.split(CHUNK), leaves.split(CHUNK), strict=True):
                points = self.points_of(some, start=depth)
                rest = points.new_zeros(count, points.shape[1]) if rest is None else rest
                rest.index_add_(0, own, points)
            assert rest is not None
            yield rows, rest / sizes[rows, None]
            first += count

    def _fitted(self, depth: int, low: Tensor, high: Tensor) -> Tensor:
        """(STAGES, BOOK, D) books for a depth's means, fitted to an even sample of them."""
        some = torch.linspace(0, len(low) - 1, min(SAMPLE, len(low)), device=low.device).long()
        first = low[some]
        last = torch.minimum(high[some], first + SAMPLE_LEAVES)
        return fit_books(torch.cat([rest for _, rest in self._rests(depth, first, last)]))


def common(old: Trie, new: Trie) -> list[Tensor]:
    """Per depth 1 .. L of the new trie, (N_d,) int64: the old trie's number of each node, -1 for a new one."""
    depth = max(old.depth, new.depth)
    place, absent = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=bool)
    found = []
    for before, after in zip(*(deepened(_arrays(trie), depth) for trie in (old, new)), strict=True):
        columns = np.union1d(before.columns, after.columns)
        place, absent = descend(recoloured(before, columns), recoloured(after, columns), place, absent)
        found.append(torch.from_numpy(np.where(absent, -1, place)).to(new.device))
    return found


def _means_in(stored: Mapping[str, Tensor], d: int) -> Means | None:
    if f"{d}.vectors" not in stored:
        return None
    several = Several(*(stored.get(f"{d}.{name}") for name in Several._fields))
    return Means(several, stored[f"{d}.vectors"], stored.get(f"{d}.codes"), stored[f"{d}.half_squares"])


def _arrays(trie: Trie) -> list[Level]:
    return [Level(*(table.cpu().numpy() for table in level)) for level in trie.levels]


def fit_books(rests: Tensor) -> Tensor:
    """(n, D) → (STAGES, BOOK, D), by k-means of what the stages before leave over."""
    draw = torch.Generator().manual_seed(0)
    books = []
    for _ in range(STAGES):
        book = rests[torch.randperm(len(rests), generator=draw)[:BOOK].to(rests.device)] / 2  # docs/results.md: seeds
        book = torch.nn.functional.pad(book, (0, 0, 0, BOOK - len(book)))
        for _ in range(ROUNDS):
            own = _nearest(rests, book)
            counts = torch.bincount(own, minlength=BOOK)[:, None]
            sums = torch.zeros_like(book).index_add_(0, own, rests)
            book = torch.where(counts > 0, sums / counts.clamp_min(1), book)
        books.append(book)
        rests = rests - book[_nearest(rests, book)]
    return torch.stack(books)


def encode(rests: Tensor, books: Tensor) -> Tensor:
    """(n, D) → (n, STAGES) uint8, each stage's nearest to what is left."""
    codes = []
    for book in books:
        own = _nearest(rests, book)
        rests = rests - book[own]
        codes.append(own.to(torch.uint8))
    return torch.stack(codes, dim=1)


def decode(codes: Tensor, books: Tensor) -> Tensor:
    """(n, STAGES) → (n, D)"""
    return torch.stack([book[codes[:, stage].long()] for stage, book in enumerate(books)]).sum(0)


def _nearest(rests: Tensor, book: Tensor) -> Tensor:
    return torch.addmm(book.square().sum(1), rests, book.T, alpha=-2).argmin(1)


def _of_columns(columns: Tensor, book: Tensor, tokens: Tensor | None, level: int) -> Tensor:
    """(C_d, D) the vectors of a level's columns; 0 for the end."""
    assert tokens is not None and len(tokens) == len(book), f"level {level} has other tokens than codes"
    codes = torch.searchsorted(tokens.to(columns), columns).clamp_max(len(book) - 1)
    return torch.where(columns[:, None] < 0, 0.0, book[codes])


def _ones(device: torch.device) -> Tensor:
    """(256,) int32 the number of ones in a byte."""
    return (torch.arange(256, device=device)[:, None] >> torch.arange(8, device=device) & 1).sum(1).int()
