"""A beam search of one query, level by level: which prefixes were kept, which were dropped, by what scores.

It observes the search itself, so that it cannot tell another story than the search.

    w beams   c candidates of a beam   A identifiers of an image
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genret.api import Hit, QueryBatch, Silent
from genret.catalog.store import Snapshot
from genret.components.retrievers.explanation import ExplainedLevel, ExplainedPrefix, Explanation
from genret.components.retrievers.restricted import fewer_than
from genret.components.retrievers.trace import forced_scores, leaves_of
from genret.decode.beam import Beams
from genret.errors import UsageError
from genret.search.image_trie import ImageTrie
from genret.search.ranking import Ints, Ranked, rank_images

if TYPE_CHECKING:
    from genret.components.retrievers.generative import GenerativeRetriever

DROPPED = 6
"""Number of dropped prefixes that are shown for each level, besides the right one."""
EXAMPLES = 4
"""Number of images shown for each prefix."""


class Step(NamedTuple):
    """All candidates of one level, best first, (n,) each."""

    nodes: Ints
    log_probs: Tensor
    scores: Tensor


class Followed(NamedTuple):
    """An observed search of one query."""

    num_beams: int
    steps: list[Step]
    beams: Beams
    ranked: Ranked


def explain(retriever: GenerativeRetriever, query: str, image_id: str | None, num_beams: int, k: int) -> Explanation:
    """Searches the catalog as `search` does."""
    if not query.strip():
        raise UsageError("the query is empty; there is no search to explain")
    with retriever.opened() as (snapshot, index):
        key = None
        if image_id is not None:
            key = int(snapshot.keys_of([image_id], searchable=True)[0])
            if key < 0:
                raise UsageError(f"no searchable image has the id '{image_id}'; search prints the ids")
        batch = QueryBatch([query], retriever.text_vectors)
        return explain_in(retriever, snapshot, index, batch, key, num_beams, k)._replace(image_id=image_id)


def explain_in(
    retriever: GenerativeRetriever,
    snapshot: Snapshot,
    index: ImageTrie | None,
    batch: QueryBatch,
    key: int | None,
    num_beams: int,
    k: int,
) -> Explanation:
    """The search of one query among the images of `index`; `key`: the image asked for."""
    gamma = float(retriever.options.guidance + retriever.options.self_guidance)
    nothing = Explanation(batch.texts[0], num_beams, gamma, [], [])
    if index is None:
        return nothing if key is None else nothing._replace(lost_at="no identifier")
    followed = follow(retriever, snapshot, index, batch, num_beams, k)
    right = np.zeros(0, np.int64)
    if key is not None:
        right = leaves_of(index, np.array([key]))[0].numpy()
        right = right[right >= 0]
    ranked, answer = followed.ranked, followed.ranked
    if retriever.reranker is not None:
        answer = retriever.rerank(batch, ranked, k, snapshot)
    hits: list[Hit] = retriever.hits(snapshot, index, answer, k)[0]
    told = Teller(retriever, snapshot, index, right)
    return nothing._replace(
        num_beams=followed.num_beams,
        levels=[told.level(d + 1, step, followed.beams) for d, step in enumerate(followed.steps)],
        hits=hits,
        rank=None if key is None else _place(answer.images[0, :k], key),
        right_score=right_score(retriever, index, batch, right),
        lost_at=None if key is None else lost_at(followed, answer, index, right, key, k),
    )


def follow(
    retriever: GenerativeRetriever, snapshot: Snapshot, index: ImageTrie, batch: QueryBatch, num_beams: int, k: int
) -> Followed:
    """Widens the search as `candidates` does, while it finds fewer images than there are."""
    wanted = min(k, len(np.unique(index.leaf_images.images)))
    while True:
        steps: list[Step] = []

        def observe(nodes: Tensor, log_probs: Tensor, scores: Tensor, steps: list[Step] = steps) -> None:
            there = (nodes[0] >= 0) & (scores[0] > -torch.inf)
            nodes, log_probs, scores = nodes[0][there], log_probs[0][there], scores[0][there]
            order = torch.sort(scores, descending=True, stable=True).indices
            steps.append(Step(nodes[order].cpu().numpy().astype(np.int64), log_probs[order].cpu(), scores[order].cpu()))

        beams = retriever.beams(batch, index.trie, num_beams, None, observe)
        similarity = retriever.similarity(batch, np.arange(1), snapshot)
        ranked = rank_images(beams.leaves.cpu().numpy(), beams.scores.cpu().numpy(), index.leaf_images, similarity)
        if num_beams >= index.trie.num_leaves or not len(fewer_than(ranked, np.array([wanted]))):
            return Followed(num_beams, steps, beams, ranked)
        num_beams *= 2


class Teller:
    """Makes the records of one search."""

    def __init__(self, retriever: GenerativeRetriever, snapshot: Snapshot, index: ImageTrie, right: Ints):
        self.retriever, self.snapshot, self.index = retriever, snapshot, index
        self.right = torch.from_numpy(right).to(index.trie.device)

    def level(self, depth: int, step: Step, beams: Beams) -> ExplainedLevel:
        kept = beams.prefixes[depth - 1].nodes[0]
        alive = set(kept[kept >= 0].tolist())
        right = set(self.index.trie.prefixes_of(self.right, depth).tolist())
        is_kept = np.array([node in alive for node in step.nodes.tolist()], bool)
        is_right = np.array([node in right for node in step.nodes.tolist()], bool)
        shown = np.flatnonzero(is_kept | is_right | (np.cumsum(~is_kept) <= DROPPED))
        nodes = step.nodes[shown]
        low, high = (end.tolist() for end in self.index.trie.leaf_range(torch.from_numpy(nodes).to(self.right), depth))
        below = [self._images(*ends) for ends in zip(low, high, strict=True)]
        ids = self._ids([keys[:EXAMPLES] for keys in below])
        prefixes = [
            ExplainedPrefix(
                self._symbols(low[row], high[row], int(below[row][0]), depth),
                int(place) + 1,
                bool(is_kept[place]),
                bool(is_right[place]),
                float(step.scores[place]),
                float(step.log_probs[place]),
                float(step.scores[place] - step.log_probs[place]),
                len(below[row]),
                ids[row],
            )
            for row, place in enumerate(shown.tolist())
        ]
        worst = float(beams.prefixes[depth - 1].scores[0][kept >= 0].min())
        return ExplainedLevel(depth, len(step.nodes), len(alive), worst, prefixes)

    def _images(self, low: int, high: int) -> Ints:
        """The keys of the images below leaves `low` to `high` - 1, those of the first leaf first."""
        starts, images = self.index.leaf_images
        found, first = np.unique(images[starts[low] : starts[high]], return_index=True)
        return found[np.argsort(first)].astype(np.int64)

    def _ids(self, keys: Sequence[Ints]) -> list[list[str]]:
        rows = iter(self.snapshot.lookup(np.concatenate(keys)) if len(keys) else ())
        return [[next(rows).image_id for _ in some] for some in keys]

    def _symbols(self, low: int, high: int, key: int, depth: int) -> list[str]:
        """Of the prefix of `depth` tokens above these leaves, `key` being an image of the first."""
        ends = np.array([low, high - 1]), np.array([key, int(self._images(high - 1, high)[0])])
        first, last = self.retriever.names(self.snapshot, self.index, ends[1], ends[0])
        assert first is not None and last is not None
        if self.retriever.identifier.vokens.sizes:
            return first[:depth]
        pairs = zip(first[0], last[0], strict=False)
        return ["".join(letter for letter, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))]


def right_score(retriever: GenerativeRetriever, index: ImageTrie, batch: QueryBatch, right: Ints) -> float | None:
    if not len(right):
        return None
    score = float(forced_scores(retriever, index, batch, torch.from_numpy(right)[None], Silent().progress)[0])
    return score if np.isfinite(score) else None


def lost_at(followed: Followed, answer: Ranked, index: ImageTrie, right: Ints, key: int, k: int) -> str | None:
    """The reason, as `Explanation.lost_at` words it."""
    if _place(answer.images[0, :k], key) is not None:
        return None
    if not len(right):
        return "no identifier"
    if _place(followed.ranked.images[0, :k], key) is not None:
        return "rerank"
    leaves = torch.from_numpy(right).to(index.trie.device)
    for depth, prefixes in enumerate(followed.beams.prefixes):
        if not torch.isin(index.trie.prefixes_of(leaves, depth + 1), prefixes.nodes[0]).any():
            return f"level {depth + 1}"
    first = followed.beams.leaves[0, :k].cpu().numpy()
    return "collision" if np.isin(right, first).any() else "rank"


def _place(keys: Ints, key: int) -> int | None:
    found = np.flatnonzero(keys == key)
    return int(found[0]) + 1 if len(found) else None


__all__ = ["explain", "explain_in"]
