"""Single queries, followed through a search: what was found, and where the right image got lost on the way.

The searches are the evaluation's own (one split's images, its beams, its reranker), for a few queries only.

    Q queries of the split   N images   M levels   T sampled captions
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genret.api import Identifiers
from genret.catalog.store import ImageRow
from genret.components.retrievers.generative import GenerativeRetriever
from genret.components.retrievers.two_tower import TwoTowerRetriever
from genret.evaluate.generated import forced_scores, leaves_of_images, search_beams
from genret.evaluate.ledger import Trace, attribute
from genret.evaluate.metrics import Ints
from genret.evaluate.question import Question, image_ranks
from genret.evaluate.ranks import asked
from genret.evaluate.rerank import rerank, search_densely
from genret.evaluate.run import ceiling_ranks
from genret.kit.encode import encode_texts
from genret.kit.feature_cache import FeatureCache
from genret.lab.report.figures import K, place, ranks_in_order
from genret.lab.report.stored import StoredRun
from genret.search.catalog import CatalogRetriever
from genret.search.dense import dense_ranks
from genret.search.image_trie import ImageTrie, index_trie
from genret.search.ranking import Ranked
from genret.search.spelling import by_image
from genret.settings import Settings

SHOWN = 5
"""Images of each answer."""
CAPTIONS = 4_000
"""Captions whose vectors are made, besides those of the queries, to be shown beside vokens."""


class Shown(NamedTuple):
    """One image of an answer."""

    rank: int
    image: ImageRow
    score: float
    identifier: list[str] | None
    is_right: bool


class TracedQuery(NamedTuple):
    """Ranks count from 1; None: not found, or not applicable."""

    kind: Literal["best", "worst"]
    query: str
    right: ImageRow
    identifier: list[str] | None
    """of the right image"""
    rank: int | None
    dense_rank: int | None
    """in the two-tower search"""
    ceiling_rank: int | None
    """in the search by what the identifiers stand for"""
    prefix_ranks: list[int | None]
    """By level, where the right prefix stood among those that the beam kept; None: it had gone"""
    lost_at: str | None
    """The ledger's word for what kept the image from the first K; `dense` where its encoder does not find it either"""
    hits: list[Shown]

    def as_json(self) -> dict[str, Any]:
        plain = self._asdict() | {"right": self.right.image_id}
        return plain | {
            "hits": [
                {"rank": hit.rank, "image_id": hit.image.image_id, "score": hit.score, "identifier": hit.identifier}
                for hit in self.hits
            ]
        }


class Sample(NamedTuple):
    """What was asked of an open run."""

    queries: list[TracedQuery]
    """The worst first"""
    captions: list[str]
    """(T,) of the split, evenly spread"""
    caption_features: Tensor
    """(T, D)"""


def choose(ranks: Ints, dense_ranks: Ints, images: Ints, count: int) -> tuple[list[int], list[int]]:
    """(Q,) ranks → rows of the worst and of the best queries, `count` in all, at most one of each image.

    Worst: the right image is placed lowest; of equals, those that the two-tower search answers best come first. Best:
    the other way round. So both ends show what generation itself does, not how hard the words are.
    """
    worst = np.lexsort((np.arange(len(ranks)), dense_ranks, -ranks))
    best = np.lexsort((np.arange(len(ranks)), -dense_ranks, ranks))
    used: set[int] = set()

    def take(order: Ints, most: int, keep: Any) -> list[int]:
        rows = list[int]()
        for row in order.tolist():
            if len(rows) == most or not keep(row):
                break
            if (image := int(images[row])) not in used:
                used.add(image)
                rows.append(row)
        return rows

    bad = take(worst, (count + 1) // 2, lambda row: ranks[row] > 1)
    return bad, take(best, count - len(bad), lambda row: ranks[row] <= K)


def sample(stored: StoredRun, retriever: CatalogRetriever, count: int, settings: Settings, ui: Any) -> Sample | None:
    """Asks the best and worst `count` queries anew; None where the split has no captions. Without stored ranks of these
    very queries none are chosen."""
    split = stored.searched_split
    captions = retriever.catalog.captions(split)
    if not captions.texts:
        return None
    keys = retriever.catalog.keys(split)
    images = retriever.catalog.lookup(keys)
    owners = np.searchsorted(keys, captions.image_keys)
    worst, best = _chosen(
        stored, asked(captions.texts, owners.tolist(), [row.image_id for row in images]), owners, count
    )
    rows = worst + best
    others = np.unique(np.linspace(0, len(owners) - 1, min(CAPTIONS, len(owners))).astype(int)).tolist()
    texts = [captions.texts[row] for row in rows + others]
    vectors = _text_vectors(retriever, texts, settings, ui)
    question = Question(
        split, keys, [row.image_id for row in images], retriever.catalog.features_of(keys), texts[: len(rows)],
        owners[rows], vectors[: len(rows)],
    )  # fmt: skip
    traced = []
    if rows:
        kinds: list[Literal["best", "worst"]] = [*["worst"] * len(worst), *["best"] * len(best)]  # type: ignore[list-item]
        if isinstance(retriever, GenerativeRetriever):
            traced = _generated(stored, retriever, question, images, kinds, ui)
        else:
            assert isinstance(retriever, TwoTowerRetriever)
            traced = _dense(retriever, question, images, kinds, ui)
    return Sample(traced, texts[len(rows) :], vectors[len(rows) :])


def _chosen(stored: StoredRun, queries: Ints, owners: Ints, count: int) -> tuple[list[int], list[int]]:
    kept = stored.by_num_beams.get(stored.followed_beams or 0, stored.dense)
    found = None if kept is None else ranks_in_order(kept, queries)
    dense = None if stored.two_tower is None else ranks_in_order(stored.two_tower, queries)
    if found is None or count < 1:
        return [], []
    return choose(found, found if dense is None else dense, owners, count)


def _text_vectors(retriever: CatalogRetriever, texts: Sequence[str], settings: Settings, ui: Any) -> Tensor:
    """(T, D) from the cache where evaluation has been."""
    encoder = retriever.encoder
    with FeatureCache.of_tower(settings.features_dir, encoder.tower_key("text")) as cache, torch.no_grad():
        raw = encode_texts(encoder, texts, cache, progress=ui.progress, label="captions")
        return torch.cat([encoder.project_texts(part.to(retriever.device)).float().cpu() for part in raw.split(8192)])


def _dense(
    retriever: TwoTowerRetriever, question: Question, images: list[ImageRow], kinds: Sequence[Any], ui: Any
) -> list[TracedQuery]:
    answer = rerank(retriever, question, search_densely(retriever, question, least=SHOWN), ui)
    exact = dense_ranks(question.query_features, question.features, question.relevant)
    plain = retriever.options.index == "exact" and retriever.reranker is None
    ranks = exact if plain else image_ranks(answer, question)
    return [
        TracedQuery(
            kind, question.queries[q], images[question.relevant[q]], None, place(ranks[q]), place(exact[q]), None, [],
            None if ranks[q] <= K else "dense" if exact[q] > K else "search",
            _hits(answer, q, images, question.relevant[q], None),
        )
        for q, kind in enumerate(kinds)
    ]  # fmt: skip


def _generated(
    stored: StoredRun,
    retriever: GenerativeRetriever,
    question: Question,
    images: list[ImageRow],
    kinds: Sequence[Any],
    ui: Any,
) -> list[TracedQuery]:
    named, identifiers = by_image(retriever.catalog.read_identifiers(split=question.split))
    if not len(named):
        return []
    width = stored.followed_beams or retriever.options.num_beams
    index = index_trie(retriever.backbone, identifiers, np.arange(len(images)), retriever.options.end_symbol)
    leaf_table = leaves_of_images(index, len(images))
    found = search_beams(retriever, question, index, leaf_table, width, ui)
    answer = rerank(retriever, question, found.ranked, ui)
    ranks = image_ranks(answer, question)
    exact = dense_ranks(question.query_features, question.features, question.relevant)
    ceiling = ceiling_ranks(retriever, identifiers, question)
    trace = Trace(
        exact, exact if ceiling is None else ceiling, found.prefix_ranks, found.identifier_ranks, found.image_ranks,
        forced_scores(retriever, question, index, leaf_table, ui), found.beam_scores,
    )  # fmt: skip
    causes = attribute(trace, K)
    names = _namer(retriever, index, identifiers)
    return [
        TracedQuery(
            kind,
            question.queries[q],
            images[question.relevant[q]],
            names(int(leaf_table[question.relevant[q], 0])),
            place(ranks[q]),
            place(exact[q]),
            None if ceiling is None else place(ceiling[q]),
            [place(rank) for rank in found.prefix_ranks[q]],
            None if ranks[q] <= K else _cause(trace, causes, q),
            _hits(answer, q, images, question.relevant[q], names),
        )
        for q, kind in enumerate(kinds)
    ]


def _cause(trace: Trace, causes: Ints, query: int) -> str:
    """The ledger's row that counts the query."""
    num_levels = trace.prefix_ranks.shape[1]
    if trace.image_ranks[query] <= K:
        return "rerank"
    if trace.ceiling_ranks[query] > K:
        return "dense" if trace.dense_ranks[query] > K else "quantization"
    cause = int(causes[query])
    return f"level {cause + 1}" if cause < num_levels else ("beam", "collision")[cause - num_levels]


def _namer(retriever: GenerativeRetriever, index: ImageTrie, identifiers: Identifiers) -> Any:
    """leaf → the symbols of its identifier."""
    row_of_leaf = {leaf: row for row, leaf in enumerate(index.trie.leaf_of_row.tolist())}

    def name(leaf: int) -> list[str] | None:
        if leaf < 0:
            return None
        row = row_of_leaf[leaf]
        if identifiers.codes is None:
            assert identifiers.texts is not None
            return [identifiers.texts[row]]
        codes = identifiers.codes[row].tolist()
        return [retriever.identifier.vokens.name(level, code) for level, code in enumerate(codes) if code >= 0]

    return name


def _hits(answer: Ranked, query: int, images: list[ImageRow], right: int, names: Any) -> list[Shown]:
    found = answer.images[query, :SHOWN].tolist()
    return [
        Shown(
            number + 1,
            images[row],
            float(answer.scores[query, number]),
            None if names is None else names(int(answer.leaves[query, number])),
            row == right,
        )
        for number, row in enumerate(found)
        if row >= 0
    ]
