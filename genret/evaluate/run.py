"""Searches a split's images by their captions; reports what is found and where the rest is lost.

Q queries   N images   b beams   M levels
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from genret.api import Ui
from genret.catalog.store import Snapshot
from genret.evaluate.answers import own_image, same_caption
from genret.evaluate.evaluation import Evaluated, Evaluation
from genret.evaluate.ledger import Trace, ledger
from genret.evaluate.metrics import CUTOFFS, recalls
from genret.evaluate.queries import QuerySet, first_rank, image_ranks, query_set
from genret.evaluate.ranks import DROWNED_OUT, OWN_SEARCH, TWO_TOWER, beams
from genret.evaluate.rerank import first_stage, rerank
from genret.kit.arrays import Ints
from genret.search.catalog import CatalogRetriever
from genret.search.dense import dense_ranks
from genret.search.ranking import Ranked
from genret.search.trace import BeamTrace


@dataclass(frozen=True, kw_only=True)
class Found:
    """One way of searching all queries; images are rows of the split."""

    first: Ranked
    first_ranks: Ints
    answer: Ranked
    ranks: Ints
    is_dense: bool
    """Whether this is the exact dense search itself, whose ranks are all known"""
    trace: BeamTrace | None

    @classmethod
    def of(
        cls,
        retriever: CatalogRetriever,
        snapshot: Snapshot,
        index: Any,
        asked: QuerySet,
        width: int | None,
        depth: int,
        ui: Ui,
    ) -> Found:
        trace = None
        if retriever.has_trace:
            trace = retriever.trace(snapshot, index, asked.batch, asked.right_keys, width or depth, ui.progress)
            first = asked.rows(trace.ranked)
        else:
            first = first_stage(retriever, snapshot, index, asked, width, depth, ui.progress)
        exact = retriever.exact_ranks(index, asked.query_features, asked.right_keys)
        first_ranks = image_ranks(first, asked) if exact is None else exact
        answer = rerank(retriever, asked, first, ui.progress)
        plain = retriever.reranker is None
        return cls(
            first=first,
            first_ranks=first_ranks,
            answer=answer,
            ranks=first_ranks if plain else image_ranks(answer, asked),
            is_dense=plain and exact is not None,
            trace=trace,
        )


def evaluate(
    retriever: CatalogRetriever,
    split: str,
    num_beams: Sequence[int],
    about: dict[str, Any],
    features_dir: Path,
    ui: Ui,
    depth: int = max(CUTOFFS),
) -> Evaluated:
    """Evaluates on the images of the catalog's `split`. The last of `num_beams` is reported in detail.

    `about`: further facts of the run, fields of `Evaluation`. `depth`: images per query that are needed from
    retrievers without beams.
    """
    asked = query_set(retriever, split, features_dir, ui.progress)
    two_tower = dense_ranks(asked.query_features, asked.features, asked.relevant)
    widths: list[int | None] = (list(num_beams) or [retriever.num_beams]) if retriever.has_beams else [None]
    facts = about | {
        "split": about.get("split", split),
        "num_queries": len(asked.queries),
        "num_images": len(asked.keys),
        "num_beams": widths[-1],
        "two_tower": recalls(two_tower),
    }
    with retriever.catalog.snapshot() as snapshot:
        index = retriever.build_index(snapshot, asked.keys)
        if index is None:
            nothing = dict.fromkeys(map(str, CUTOFFS))
            by_width = {width: nothing for width in widths if width is not None}
            missing = Evaluation(**facts, recall=nothing, identifier_recall=nothing, by_num_beams=by_width)
            return Evaluated(
                evaluation=missing, retriever=retriever, asked=asked, index=None, first=None, answer=None,
                ranks={TWO_TOWER: two_tower},
            )  # fmt: skip
        found = {width: Found.of(retriever, snapshot, index, asked, width, depth, ui) for width in widths}
        main = found[widths[-1]]
        drowned_out = retriever.drowned_out()
        alone = None if drowned_out is None else Found.of(drowned_out, snapshot, index, asked, widths[-1], depth, ui)
        explained = explain(retriever, snapshot, index, asked, two_tower, main)
    answer = None if main.is_dense else main.answer
    evaluation = Evaluation(
        **facts | _figures(explained, widths[-1]),
        recall=recalls(main.ranks, num_beams=widths[-1]),
        by_num_beams={w: recalls(one.ranks, num_beams=w) for w, one in found.items() if w is not None},
        first_stage=None if retriever.reranker is None else recalls(main.first_ranks, num_beams=widths[-1]),
        measures=own_image(asked, answer, two_tower, widths[-1]),
        shared_captions=same_caption(asked, answer, widths[-1]),
    )
    if alone is not None:
        scores = own_image(asked, alone.answer, two_tower, widths[-1])["searched"]
        first = None if retriever.reranker is None else recalls(alone.first_ranks, num_beams=widths[-1])
        evaluation = replace(evaluation, drowned_out=scores | {"first_stage": first})
    ways = {OWN_SEARCH if width is None else beams(width): one.ranks for width, one in found.items()}
    return Evaluated(
        evaluation=evaluation, retriever=retriever, asked=asked, index=index, first=main.first, answer=main.answer,
        ranks={TWO_TOWER: two_tower} | ways | ({} if alone is None else {DROWNED_OUT: alone.first_ranks}),
    )  # fmt: skip


class Explained(NamedTuple):
    """Details that explain the results of a search."""

    trace: Trace
    ceiling: Ints | None
    """(Q,) ranks in the dense search by what identifiers keep of the images, in the metric of the run's search; None
    where they say nothing of an image"""
    in_order: Ints
    """(Q,) ranks when the images found are put into dense order"""
    statistics: dict[str, Any] | None


def explain(
    retriever: CatalogRetriever, snapshot: Snapshot, index: Any, asked: QuerySet, two_tower: Ints, found: Found
) -> Explained | None:
    """From the search's trace; None if the retriever has none."""
    if found.trace is None:
        return None
    inspection = retriever.inspect(snapshot, index, asked.keys)
    in_order, ceiling = dense_order_ranks(found.first, asked), None
    if inspection.reconstruction is not None:
        embed = inspection.embed_queries
        queries = asked.query_features if embed is None else embed(asked.query_features)
        ceiling = dense_ranks(queries, inspection.reconstruction, asked.relevant)
    trace = Trace(
        dense_ranks=two_tower,
        ceiling_ranks=two_tower if ceiling is None else ceiling,
        prefix_ranks=found.trace.prefix_ranks,
        identifier_ranks=found.trace.identifier_ranks,
        image_ranks=found.first_ranks,
        forced_scores=found.trace.forced_scores(),
        beam_scores=found.trace.beam_scores,
        reranked_ranks=in_order if retriever.reranker is None else found.ranks,
    )
    return Explained(trace, ceiling, in_order, inspection.statistics)


def _figures(explained: Explained | None, width: int | None) -> dict[str, Any]:
    if explained is None:
        return {}
    return {
        "identifier_recall": recalls(explained.trace.identifier_ranks, num_beams=width),
        "ceiling": None if explained.ceiling is None else recalls(explained.ceiling),
        "reranked": recalls(explained.in_order, num_beams=width),
        "ledger": ledger(explained.trace, k=max(CUTOFFS)),
        "identifier": explained.statistics,
    }


def dense_order_ranks(ranked: Ranked, asked: QuerySet) -> Ints:
    """(Q,) ranks, from 1, of the positives when the images found are put into dense order."""
    images = torch.from_numpy(ranked.images)
    ranks = []
    for start in range(0, len(images), 256):
        part = images[start : start + 256]
        scores = torch.einsum("qd,qcd->qc", asked.query_features[start : start + 256], asked.features[part])
        order = scores.masked_fill(part < 0, -torch.inf).argsort(dim=1, descending=True, stable=True)
        relevant = torch.from_numpy(asked.relevant[start : start + 256])[:, None]
        ranks.append(first_rank(part.gather(1, order), relevant))
    return np.concatenate(ranks)
