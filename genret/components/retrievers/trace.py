"""A beam search of many queries, with the data for the error ledger.

Q queries   M levels   b beams   A identifiers of an image
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genret.api import Progress, QueryBatch
from genret.catalog.store import Snapshot
from genret.kit.arrays import Ints
from genret.search.image_trie import ImageTrie
from genret.search.ranking import Ranked, rank_images
from genret.search.tokenization import columns_of
from genret.search.trace import BeamTrace, first_rank

if TYPE_CHECKING:
    from genret.components.retrievers.generative import GenerativeRetriever


class _Part(NamedTuple):
    ranked: Ranked
    identifier_ranks: Ints
    prefix_ranks: Ints
    beam_scores: NDArray[np.float32]


def trace(
    retriever: GenerativeRetriever,
    snapshot: Snapshot,
    index: ImageTrie,
    batch: QueryBatch,
    right: Ints,
    num_beams: int,
    progress: Progress,
) -> BeamTrace:
    """Searches every query; right (Q,): the catalog key of each query's image."""
    leaves = leaves_of(index, right)
    parts: list[_Part] = []
    size = retriever.options.batch_size
    with progress(f"search, {num_beams} beams", len(batch)) as bar:
        for start in range(0, len(batch), size):
            some = batch.rows(start, start + size)
            parts.append(_searched(retriever, snapshot, index, some, leaves[start : start + size], num_beams))
            bar.advance(len(some))
    return BeamTrace(
        ranked=Ranked.joined([part.ranked for part in parts]),
        identifier_ranks=np.concatenate([part.identifier_ranks for part in parts]),
        prefix_ranks=np.concatenate([part.prefix_ranks for part in parts]),
        beam_scores=np.concatenate([part.beam_scores for part in parts]),
        forced_scores=lambda: forced_scores(retriever, index, batch, leaves, progress),
    )


def _searched(
    retriever: GenerativeRetriever,
    snapshot: Snapshot,
    index: ImageTrie,
    batch: QueryBatch,
    right: Tensor,
    num_beams: int,
) -> _Part:
    """right (B, A): the leaves of each query's image."""
    beams = retriever.beams(batch, index.trie, num_beams)
    scores = beams.scores.cpu().numpy()
    similarity = retriever.similarity(batch, np.arange(len(batch)), snapshot)
    ranked = rank_images(beams.leaves.cpu().numpy(), scores, index.leaf_images, similarity)
    there = right.to(index.trie.device)
    prefix_ranks = [
        first_rank(prefixes.nodes, index.trie.prefixes_of(there, depth + 1))
        for depth, prefixes in enumerate(beams.prefixes)
    ]
    return _Part(ranked, first_rank(beams.leaves, right.to(beams.leaves.device)), np.stack(prefix_ranks, 1), scores)


def leaves_of(index: ImageTrie, keys: Ints) -> Tensor:
    """(Q,) catalog keys → (Q, A) the leaves that lead to each image, -1 pads."""
    starts, images = index.leaf_images
    distinct, owners = np.unique(images, return_inverse=True)
    leaves = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    order = np.argsort(owners, kind="stable")
    counts = np.bincount(owners, minlength=len(distinct))
    place = np.arange(len(owners)) - (np.cumsum(counts) - counts)[owners[order]]
    table = np.full((len(distinct) + 1, int(counts.max(initial=1))), -1)  # last row: images without identifiers
    table[owners[order], place] = leaves[order]
    rows = np.searchsorted(distinct, keys).clip(max=len(distinct) - 1)
    return torch.from_numpy(table[np.where(distinct[rows] == keys, rows, len(distinct))])


def forced_scores(
    retriever: GenerativeRetriever, index: ImageTrie, batch: QueryBatch, leaves: Tensor, progress: Progress
) -> NDArray[np.float32]:
    """(Q,) the beam score of the positive identifier (the best, if several), whether or not a beam reaches it."""
    if retriever.options.score == "trie":  # normalized over the children, so no comparable score without beams
        return np.full(len(batch), -np.inf, np.float32)
    trie, backbone, written = index.trie, retriever.backbone, retriever.written_levels
    columns = columns_of(backbone, retriever.options.score, trie.depth)
    best = []
    size = retriever.options.batch_size
    with progress("scores of the right identifiers", len(batch)) as bar, torch.inference_mode():
        for start in range(0, len(batch), size):
            some = batch.rows(start, start + size)
            right = leaves[start : start + size].to(trie.device)
            tokens = trie.tokens_of(right)
            scores = backbone.score(some.texts, tokens[:, :, :written], columns[:written]).sum(-1)
            _, guide = retriever.guidance.begin(some, trie)
            if guide is not None:
                scores = scores + guide.of_leaves(right)
            best.append(scores.masked_fill(right < 0, -torch.inf).amax(1).float().cpu().numpy())
            bar.advance(len(some))
    return np.concatenate(best)
