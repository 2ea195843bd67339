"""A generator's beam search over all queries of a split, with what the ledger wants to know of it.

Q queries   N images   M levels   b beams   A identifiers of an image
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genret.components.retrievers.generative import GenerativeRetriever
from genret.evaluate.metrics import Ints
from genret.evaluate.question import Question, first_rank
from genret.search.image_trie import ImageTrie
from genret.search.ranking import Ranked, rank_images
from genret.search.spelling import columns_of


class Searched(NamedTuple):
    """One pass of the generator over all queries, with b beams."""

    ranked: Ranked
    image_ranks: Ints
    identifier_ranks: Ints
    prefix_ranks: Ints
    """(Q, M) from 1, where the right prefix stood among the surviving ones of its level; MISSED where it had gone"""
    beam_scores: NDArray[np.float32]
    """(Q, b)"""


def search_beams(
    retriever: GenerativeRetriever, question: Question, index: ImageTrie, leaf_table: Tensor, num_beams: int, ui: Any
) -> Searched:
    """Beam search of every query, with the ranks at which the right image and its prefixes stood."""
    parts: list[Searched] = []
    size = retriever.options.batch_size
    with ui.progress(f"search, {num_beams} beams", len(question.queries)) as bar:
        for start in range(0, len(question.queries), size):
            rows = slice(start, start + size)
            queries = question.queries[rows]
            features = question.query_features[rows]
            beams = retriever.beams(queries, features, index.trie, num_beams)
            leaves, scores = beams.leaves.cpu().numpy(), beams.scores.cpu().numpy()
            similarity = partial(_similarity, features, question.features)
            ranked = rank_images(leaves, scores, index.leaf_images, similarity)
            right = leaf_table[question.relevant[rows]]  # (B, A) the right image's identifiers
            prefix_ranks = [
                first_rank(prefixes.nodes, index.trie.prefixes_of(right.to(index.trie.device), depth + 1))
                for depth, prefixes in enumerate(beams.prefixes)
            ]
            parts.append(
                Searched(
                    ranked,
                    first_rank(torch.from_numpy(ranked.images), torch.from_numpy(question.relevant[rows])[:, None]),
                    first_rank(beams.leaves, right.to(beams.leaves.device)),
                    np.stack(prefix_ranks, axis=1),
                    scores,
                )
            )
            bar.advance(len(queries))
    ranked = Ranked(*(_stacked([part.ranked[i] for part in parts], fill) for i, fill in enumerate((-1, -np.inf, -1))))
    return Searched(ranked, *(np.concatenate([part[i] for part in parts]) for i in range(1, 5)))


def _similarity(queries: Tensor, images: Tensor, query: Ints, image: Ints) -> NDArray[np.float32]:
    """Of the given rows of queries and images, pair by pair."""
    return (queries[torch.from_numpy(query)] * images[torch.from_numpy(image)]).sum(-1).numpy()


def leaves_of_images(index: ImageTrie, num_images: int) -> Tensor:
    """(N, A) the leaves that lead to each image, -1 pads."""
    starts, images = map(torch.from_numpy, index.leaf_images)
    owners, leaves = images.long(), torch.arange(len(starts) - 1).repeat_interleave(starts.diff())
    order = torch.argsort(owners, stable=True)
    counts = torch.bincount(owners, minlength=num_images)
    place = torch.arange(len(owners)) - (counts.cumsum(0) - counts)[owners[order]]
    table = torch.full((num_images, int(counts.max())), -1)
    table[owners[order], place] = leaves[order]
    return table


def forced_scores(
    retriever: GenerativeRetriever, question: Question, index: ImageTrie, leaf_table: Tensor, ui: Any
) -> NDArray[np.float32]:
    """(Q,) what beams would score the right identifier (the best one, of several), whether or not they reach it."""
    if retriever.options.score == "trie":  # normalised over children: no beam-free score is comparable
        return np.full(len(question.queries), -np.inf, np.float32)
    trie, backbone = index.trie, retriever.backbone
    columns, written = columns_of(backbone, retriever.options.score, trie.depth), retriever.options.written_levels
    best = []
    size = retriever.options.batch_size
    with ui.progress("scores of the right identifiers", len(question.queries)) as bar, torch.inference_mode():
        for start in range(0, len(question.queries), size):
            queries = question.queries[start : start + size]
            right = leaf_table[question.relevant[start : start + size]].to(trie.device)
            tokens = trie.tokens_of(right)
            scores = backbone.score(queries, tokens[:, :, :written], columns[:written]).sum(-1)
            guide = retriever.guide(question.query_features[start : start + size], trie)
            if guide is not None:
                scores = scores + guide.of(right, trie.depth)
            best.append(scores.masked_fill(right < 0, -torch.inf).amax(1).float().cpu().numpy())
            bar.advance(len(queries))
    return np.concatenate(best)


def _stacked(parts: list[NDArray[Any]], fill: float) -> NDArray[Any]:
    """Rows of different widths, one below the other."""
    width = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(p, ((0, 0), (0, width - p.shape[1])), constant_values=fill) for p in parts])
