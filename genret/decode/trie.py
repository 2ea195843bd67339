"""The identifiers of a catalog as a prefix tree of flat tensors: the valid outputs of the beam search.

Independent of images, queries and models: it is built from rows of token ids and returns positions. A *leaf* is a
distinct identifier; leaves are numbered in lexicographic order. The *nodes* of depth d are the distinct prefixes of d
tokens in the same order, and an ended identifier continues as its own only child. So the nodes of the last depth
are the leaves, and all nodes with a given prefix are one range at every depth. The root is node 0 of depth 0. A trie
is immutable: `extended` and `without` create new ones, which share tensors with the old one where possible.

    R rows   L depth   U leaves   N_d nodes of depth d (N_0 = 1, N_L = U)   C_d distinct tokens in position d
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from genret.decode import changing, sorting
from genret.decode.sorting import Level
from genret.errors import GenretError
from genret.kit.files import replacing

FORMAT = "genret-trie-2"


class Trie:
    """`levels[d]` connects depth d to d + 1."""

    def __init__(self, levels: Sequence[Level], leaf_of_row: Tensor, max_children: Sequence[int] | None = None):
        self.levels = list(levels)
        self.leaf_of_row = leaf_of_row
        """(R,) int32, the leaf of each row that the trie was built from"""
        # Python numbers, so that the shapes of a search are known without a device transfer.
        self.num_prefixes = [len(level.symbols) for level in self.levels]
        """Per depth d, N_{d+1}: the prefixes of d + 1 tokens, including identifiers that ended earlier."""
        self.max_children = list(max_children or [int(level.offsets.diff().max()) for level in self.levels])
        """Per depth, the maximum number of children of a node."""
        self.has_ends = [bool(level.columns[0] < 0) for level in self.levels]
        """Per depth, whether some identifier has ended before."""
        self._wide: dict[int, Tensor | None] = {}

    @property
    def num_leaves(self) -> int:
        return self.num_prefixes[-1] if self.levels else 0

    @property
    def depth(self) -> int:
        """Number of tokens of the longest identifier."""
        return len(self.levels)

    @property
    def device(self) -> torch.device:
        return self.leaf_of_row.device

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, including those that searches have added."""
        tables = [table.nbytes for table in self._wide.values() if table is not None]
        return sum(t.nbytes for level in self.levels for t in level) + self.leaf_of_row.nbytes + sum(tables)

    def to(self, device: torch.device | str) -> Trie:
        levels = [Level(*(t.to(device) for t in level)) for level in self.levels]
        return Trie(levels, self.leaf_of_row.to(device), self.max_children)

    # -------------------------------------------------------------------------------------------------------- building
    @classmethod
    def build(cls, tokens: Tensor) -> Trie:
        """tokens (R, L) of any integer type, -1 after the end. Rows may repeat; no row may be a prefix of another.

        Sorts integers on the CPU, in place: besides the rows and the trie it takes 8 bytes a row for each 64-bit word
        of key (row number and tokens; 10 million rows of four tokens out of 1024 fit into one).
        """
        assert tokens.ndim == 2 and not tokens.is_floating_point(), "tokens: (R, L) integers"
        empty = ~(tokens[:, :1] >= 0).any(1)
        if bool(empty.any()):
            row = int(empty.int().argmax())
            raise GenretError(f"identifier {row} has no symbols; give every image at least one symbol")
        levels, leaf_of_row = sorting.build_levels(tokens.cpu().numpy())
        return cls._checked(levels, leaf_of_row).to(tokens.device)

    def extended(self, tokens: Tensor) -> Trie:
        """This trie's rows followed by those of `tokens` (n, L'), equal to `build` of all of them.

        Sorts only the new rows and merges them in: the existing levels are copied, not sorted again.
        """
        new = Trie.build(tokens.cpu())
        if not self.levels:
            return new.to(self.device)
        if not new.levels:
            return self
        levels, moved, leaf_of_new = changing.merge(_arrays(self), _arrays(new))
        old_leaves, new_leaves = self.leaf_of_row.cpu().numpy(), new.leaf_of_row.numpy()
        leaf_of_row = np.concatenate([moved[old_leaves], leaf_of_new[new_leaves]])
        return self._checked(levels, leaf_of_row).to(self.device)

    def without(self, rows: Tensor) -> Trie:
        """The trie of all rows but these, given as indices (n,) or as a mask (R,), in the same order."""
        left = np.ones(len(self.leaf_of_row), dtype=bool)
        left[rows.cpu().numpy()] = False
        leaf_of_row = self.leaf_of_row.cpu().numpy()[left]
        kept = np.zeros(self.num_leaves, dtype=bool)
        kept[leaf_of_row] = True
        levels = changing.prune(_arrays(self), kept)
        leaves = np.cumsum(kept, dtype=np.int32) - 1
        return self._checked(levels, leaves[leaf_of_row]).to(self.device)

    @classmethod
    def _checked(cls, levels: list[Level], leaf_of_row: Any) -> Trie:
        """From numpy; rejects identifiers that are prefixes of others: there, the end is not a node's only child."""
        trie = cls([Level(*map(torch.from_numpy, level)) for level in levels], torch.from_numpy(leaf_of_row))
        for d, level in enumerate(trie.levels):
            if trie.has_ends[d] and trie.max_children[d] > 1:
                first = level.offsets[:-1]
                begins = (level.symbols[first.long()] == 0) & (level.offsets.diff() > 1)
                if bool(begins.any()):
                    child = first[begins][:1]
                    pair, _ = trie.leaf_range(torch.cat([child, child + 1]), d + 1)
                    shorter, longer = (row[row >= 0].tolist() for row in trie.tokens_of(pair))
                    raise GenretError(
                        f"identifier {shorter} is the beginning of {longer}; append the end symbol to every identifier"
                    )
        return trie

    # --------------------------------------------------------------------------------------------------------- reading
    def leaf_range(self, nodes: Tensor, depth: int) -> tuple[Tensor, Tensor]:
        """nodes (...) of `depth` → the first leaf below each, and the last one + 1, (...) each."""
        low, high = nodes, nodes + 1
        for level in self.levels[depth:]:
            low, high = take(level.offsets, low), take(level.offsets, high)
        return low, high

    def prefixes_of(self, leaves: Tensor, length: int) -> Tensor:
        """leaves (...) → the node of depth `length` (1 .. depth) above each (...) int64, -1 where the leaf is -1."""
        nodes = leaves.clamp_min(0).int()
        for level in reversed(self.levels[length:]):
            nodes = _parents(level, nodes)
        return torch.where(leaves < 0, -1, nodes.long())

    def tokens_of(self, leaves: Tensor) -> Tensor:
        """leaves (...) → (..., depth) int64 token ids, -1 after the end; all -1 where the leaf is -1."""
        tokens = torch.full((*leaves.shape, self.depth), -1, device=leaves.device)
        nodes = leaves.clamp_min(0).int()
        for d in reversed(range(self.depth)):
            level = self.levels[d]
            tokens[..., d] = torch.where(leaves < 0, -1, level.columns[take(level.symbols, nodes).long()])
            nodes = _parents(level, nodes)
        return tokens

    def wide(self, depth: int) -> Tensor | None:
        """For depths whose nodes have many of the possible children: (N_d, C_d) int32, the child that each column leads
        to, -1 for none; computed once. None for other depths.

        A search then reads rows instead of scattered entries; a table at least a quarter full takes at most 16 bytes a
        child.
        """
        if depth not in self._wide:
            level = self.levels[depth]
            shape = len(level.offsets) - 1, len(level.columns)
            table = None
            if shape[0] * shape[1] <= 4 * len(level.symbols):
                table = torch.full(shape, -1, dtype=torch.int32, device=self.device)
                children = torch.arange(len(level.symbols), dtype=torch.int32, device=self.device)
                table[_parents(level, children), level.symbols.long()] = children
            self._wide[depth] = table
        return self._wide[depth]

    # ----------------------------------------------------------------------------------------------------------- files
    def save(self, path: Path) -> None:
        """Writes one safetensors file, atomically."""
        tensors = {f"{d}.{name}": t for d, level in enumerate(self.levels) for name, t in level._asdict().items()}
        tensors["leaf_of_row"] = self.leaf_of_row
        about = json.dumps({"format": FORMAT, "max_children": self.max_children})
        with replacing(path) as part:
            save_file({name: t.contiguous().cpu() for name, t in tensors.items()}, part, metadata={"trie": about})

    @classmethod
    def load(cls, path: Path) -> Trie:
        """Reads what `save` wrote, on the CPU; memory-mapped, so that only the parts in use are read."""
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {}).get("trie", "{}"))
                if about.get("format") != FORMAT:
                    raise GenretError(f"{path} is no trie of this version of genret; delete it and it is built anew")
                most = [int(count) for count in about["max_children"]]
                read = [[file.get_tensor(f"{d}.{name}") for name in Level._fields] for d in range(len(most))]
                return cls([Level(*tensors) for tensors in read], file.get_tensor("leaf_of_row"), most)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise GenretError(f"cannot read the trie {path} ({error}); delete it and it is built anew") from error


def take(table: Tensor, index: Tensor) -> Tensor:
    """`table[index]` for a vector; several times faster on a CPU."""
    return table.index_select(0, index.reshape(-1)).view(index.shape)


def _parents(level: Level, nodes: Tensor) -> Tensor:
    return torch.searchsorted(level.offsets, nodes, right=True, out_int32=True) - 1


def _arrays(trie: Trie) -> list[Level]:
    return [Level(*(t.cpu().numpy() for t in level)) for level in trie.levels]
