"""Constrained beam search with a recipe's options: its score, guidance and written levels."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from genret.api import Backbone, SearchScore
from genret.decode.beam import Beams, beam_search
from genret.decode.guide import Guide
from genret.decode.leaf_sets import LeafSets
from genret.decode.trie import Trie
from genret.search.tokenization import columns_of


def search_trie(
    backbone: Backbone,
    queries: Sequence[str],
    trie: Trie,
    num_beams: int,
    score: SearchScore = "level",
    written_levels: int | None = None,
    allowed: LeafSets | None = None,
    guide: Guide | None = None,
) -> Beams:
    """Constrained beam search; the arguments are those of `beam_search`."""
    with torch.no_grad():
        levels = columns_of(backbone, score, trie.depth)
        return beam_search(backbone, queries, trie, num_beams, score, levels, allowed, guide, written_levels)
