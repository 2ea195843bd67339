"""The identifiers of a catalog as a prefix tree of flat tensors: what the beam search may write.

Does not know images, queries or models: it is built from rows of token ids and answers in positions. A *leaf* is a
distinct identifier; leaves are numbered in lexicographic order, so that whatever begins with a given prefix is one
range of leaves. The nodes of each depth are numbered in the same order; the root is node 0 of depth 0.

    R rows   L depth   U leaves   N_d nodes of depth d   C_d different tokens in position d
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from genret.errors import GenretError

FORMAT = "genret-trie-1"


class Level(NamedTuple):
    """The edges that lead from the nodes of depth d to those of depth d + 1. All int32 but `columns`."""

    offsets: Tensor
    """(N_d + 1,) the children of node n are the nodes offsets[n] .. offsets[n + 1] - 1 of depth d + 1"""
    columns: Tensor
    """(C_d,) int64, the token ids that occur in position d, ascending"""
    symbols: Tensor
    """(N_{d+1},) each child's token, as an index into `columns`"""
    low: Tensor
    """(N_{d+1},) each child's first leaf"""
    high: Tensor
    """(N_{d+1},) each child's last leaf + 1"""


class Trie:
    """`levels[d]` leads from depth d to d + 1; a node without children is the end of an identifier."""

    def __init__(self, levels: list[Level], leaf_of_row: Tensor, num_leaves: int):
        self.levels = levels
        self.leaf_of_row = leaf_of_row
        """(R,) int64, the leaf of each row that the trie was built from"""
        self.num_leaves = num_leaves
        # Python numbers, so that the shapes of a search are known without asking the device.
        self.max_children = [int(level.offsets.diff().max()) for level in levels]
        """Per depth, the most children of one node."""
        self.num_prefixes = [
            len(level.low) + num_leaves - int((level.high - level.low).sum()) if num_leaves else 0 for level in levels
        ]
        """Per depth, how many prefixes of d + 1 tokens there are, identifiers that ended earlier included."""

    @property
    def depth(self) -> int:
        """Tokens of the longest identifier."""
        return len(self.levels)

    @property
    def device(self) -> torch.device:
        return self.leaf_of_row.device

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for level in self.levels for t in level) + self.leaf_of_row.nbytes

    def columns(self, depth: int) -> tuple[Tensor, Tensor]:
        """Sorted token ids (C_d,) that occur in position `depth`, and each child's index into them (N_{d+1},)."""
        return self.levels[depth].columns, self.levels[depth].symbols

    def to(self, device: torch.device | str) -> Trie:
        moved = Trie.__new__(Trie)
        moved.__dict__.update(self.__dict__)
        moved.levels = [Level(*(t.to(device) for t in level)) for level in self.levels]
        moved.leaf_of_row = self.leaf_of_row.to(device)
        return moved

    # -------------------------------------------------------------------------------------------------------- building
    @classmethod
    def build(cls, tokens: Tensor) -> Trie:
        """tokens (R, L) int64, -1 after the end. Rows may repeat; none may be the beginning of another."""
        assert tokens.ndim == 2 and tokens.dtype == torch.int64, "tokens: (R, L) int64"
        present = tokens >= 0
        assert not len(tokens) or int(tokens.min()) >= -1
        assert bool((present[:, 1:] <= present[:, :-1]).all()), "-1 may only stand after the end of an identifier"
        lengths = present.sum(1)
        if len(tokens) and int(lengths.min()) == 0:
            row = int(lengths.argmin())
            raise GenretError(f"identifier {row} has no symbols; give every image at least one symbol")
        depth = int(lengths.max()) if len(tokens) else 0
        ranked = [rank_tokens(tokens[:, d]) for d in range(depth)]
        ranks, sizes = [rank for _, rank in ranked], [len(column) + 1 for column, _ in ranked]
        leaf_of_row, rows = rank_rows(ranks, sizes, len(tokens), tokens.device)
        num_leaves = len(rows)

        levels: list[Level] = []
        parent_low = torch.zeros(1, dtype=torch.int64, device=tokens.device)
        changed = torch.zeros(num_leaves, dtype=torch.bool, device=tokens.device)
        if num_leaves:
            changed[0] = True
        for column, rank in ranked:
            symbols = rank[rows]  # 0: the leaf has ended before this position
            ends_before = (symbols[:-1] == 0) & (symbols[1:] > 0) & ~changed[1:]
            if bool(ends_before.any()):
                shorter, longer = (tokens[rows[int(ends_before.nonzero()[0]) + i]] for i in (0, 1))
                raise GenretError(
                    f"identifier {shorter[shorter >= 0].tolist()} is the beginning of {longer[longer >= 0].tolist()}; "
                    "append the end symbol to every identifier"
                )
            changed[1:] |= symbols[1:] != symbols[:-1]
            starts = changed.nonzero().squeeze(1)  # where a prefix begins, or a leaf that has ended
            stops = torch.cat([starts[1:], starts.new_tensor([num_leaves])])
            alive = symbols[starts] > 0
            low, high = starts[alive], stops[alive]
            # Leaves that ended earlier lie between the nodes but have no nodes of this depth, so CSR needs no gaps.
            offsets = torch.cat([torch.searchsorted(low, parent_low), low.new_tensor([len(low)])])
            levels.append(Level(offsets.int(), column, (symbols[low] - 1).int(), low.int(), high.int()))
            parent_low = low
        return cls(levels, leaf_of_row, num_leaves)

    # --------------------------------------------------------------------------------------------------------- reading
    def prefixes_of(self, leaves: Tensor, length: int) -> Tensor:
        """The node of depth `length` (1 .. depth) above each leaf, in the words of `Beams.prefixes`.

        leaves (...) int64 → (...) int64; `-2 - leaf` where the identifier has fewer tokens, -1 where `leaves` is -1.
        """
        level = self.levels[length - 1]
        clamped = leaves.clamp_min(0).int()
        node = torch.searchsorted(level.low, clamped, right=True) - 1
        inside = (node >= 0) & (clamped < level.high[node.clamp_min(0)])
        return torch.where(leaves < 0, -1, torch.where(inside, node, -2 - leaves))

    def tokens_of(self, leaves: Tensor) -> Tensor:
        """leaves (n,) → (n, depth) int64 token ids, -1 after the end; all -1 where the leaf is -1."""
        tokens = leaves.new_full((*leaves.shape, self.depth), -1)
        for d, level in enumerate(self.levels):
            node = self.prefixes_of(leaves, d + 1)
            symbol = level.columns[level.symbols[node.clamp_min(0)].long()]
            tokens[..., d] = torch.where(node >= 0, symbol, -1)
        return tokens

    # ----------------------------------------------------------------------------------------------------------- files
    def save(self, path: Path) -> None:
        """One safetensors file."""
        tensors = {f"{d}.{name}": t for d, level in enumerate(self.levels) for name, t in level._asdict().items()}
        tensors["leaf_of_row"] = self.leaf_of_row
        about = json.dumps({"format": FORMAT, "depth": self.depth, "num_leaves": self.num_leaves})
        save_file({name: t.contiguous().cpu() for name, t in tensors.items()}, path, metadata={"trie": about})

    @classmethod
    def load(cls, path: Path) -> Trie:
        """Reads what `save` wrote, to the CPU."""
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {}).get("trie", "{}"))
                if about.get("format") != FORMAT:
                    raise GenretError(f"{path} is no trie of this version of genret; delete it and it is built anew")
                read = [[file.get_tensor(f"{d}.{name}") for name in Level._fields] for d in range(about["depth"])]
                return cls([Level(*tensors) for tensors in read], file.get_tensor("leaf_of_row"), about["num_leaves"])
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise GenretError(f"cannot read the trie {path} ({error}); delete it and it is built anew") from error


def rank_tokens(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """tokens (R,) → the different ones, ascending (C,), and each row's place among them from 1, 0 for -1.

    Token ids are small numbers: a table of the vocabulary's size is faster than sorting a long column.
    """
    table = torch.zeros(int(tokens.max()) + 2, dtype=torch.int64, device=tokens.device)
    table[tokens + 1] = 1
    table[0] = 0
    return table.nonzero().squeeze(1) - 1, table.cumsum(0)[tokens + 1] * table[tokens + 1]


def rank_rows(
    ranks: Sequence[Tensor], sizes: Sequence[int], num_rows: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Sorts rows lexicographically, as many positions at a time as fit into one 64-bit key `(prefix, symbols...)`.

    ranks: L columns (R,), column d in 0 .. sizes[d] - 1 → the rank of each row among the different rows (R,), and for
    each different row, in order, one row that holds it (U,).
    """
    key, count = torch.zeros(num_rows, dtype=torch.int64, device=device), 1
    for rank, size in zip(ranks, sizes, strict=True):
        if count * size >= 2**63:
            key, rows = dense_rank(key)
            count = len(rows)
        assert count * size < 2**63
        key, count = key * size + rank, count * size
    return dense_rank(key)


def dense_rank(key: Tensor) -> tuple[Tensor, Tensor]:
    """key (R,) → the rank of each among the different keys (R,), and the first row of each different key (U,)."""
    ordered, order = key.sort(stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    rank = torch.empty_like(key)
    rank[order] = first.cumsum(0) - 1
    return rank, order[first]
