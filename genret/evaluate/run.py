"""`genret evaluate`: searches a split's images by their captions; says what is found and where the rest is lost.

Q queries   N images   b beams   M levels
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from genret.api import Identifiers
from genret.components.retrievers.generative import GenerativeRetriever
from genret.components.retrievers.two_tower import TwoTowerRetriever
from genret.evaluate.answers import own_image, same_caption
from genret.evaluate.evaluation import Evaluation
from genret.evaluate.generated import forced_scores, leaves_of_images, search_beams
from genret.evaluate.ledger import Trace, ledger
from genret.evaluate.metrics import CUTOFFS, recalls
from genret.evaluate.question import Question, first_rank, image_ranks, question_of
from genret.evaluate.ranks import DENSE_SEARCH, TWO_TOWER, beams, write_ranks
from genret.evaluate.rerank import rerank, search_densely
from genret.kit.usage import usage_statistics
from genret.lab.confidence.confidence import ask, judged
from genret.lab.leakage.leakage import read_leakage
from genret.lab.trec import write_qrels, write_run
from genret.plugin.registry import Registries
from genret.recipe.compatibility import guessed
from genret.recipe.parts import components
from genret.run import open_retriever, run_recipe
from genret.search.confidence import LOOKED_AT
from genret.search.dense import dense_ranks
from genret.search.image_trie import ImageTrie, index_trie
from genret.search.ranking import Ranked
from genret.search.spelling import by_image
from genret.settings import Settings

Ints = NDArray[np.int64]
TREC_DEPTH = 100
"""Images of each query in the run files of dense searches."""


class _Found(NamedTuple):
    """What a search returned, and the figures that depend on how it searches."""

    evaluation: Evaluation
    first: Ranked | None = None
    """Of the first stage; None where nothing could be searched, or where it is the exact dense search"""
    answer: Ranked | None = None
    """Reranked, where the recipe says so; None likewise"""
    trie: ImageTrie | None = None
    """Of the split's images, where identifiers are searched"""


def evaluate(
    run: Path,
    split: str,
    num_beams: Sequence[int],
    registries: Registries,
    settings: Settings,
    ui: Any,
    trec: Path | None = None,
) -> Evaluation:
    """Evaluates a finished run on the images of `split`. The last of `num_beams` is the one reported at length."""
    recipe = run_recipe(run, registries)
    retriever = open_retriever(run, registries, settings)
    dataset = components(recipe, registries).dataset
    question = question_of(retriever, dataset.test_split if split == "test" else split, settings, ui)
    facts = (recipe.protocol, dataset.concepts, split, len(question.queries), len(question.keys))
    two_tower = dense_ranks(question.query_features, question.features, question.relevant)
    _keep_ranks(run, split, question, {TWO_TOWER: two_tower}, ui)
    if isinstance(retriever, TwoTowerRetriever):
        done = _searched_densely(run, facts, retriever, question, two_tower, ui, trec)
    else:
        assert isinstance(retriever, GenerativeRetriever)
        widths, remark = list(num_beams) or [recipe.search.num_beams], guessed(recipe, registries)
        done = _searched_by_beams(run, facts, retriever, question, two_tower, widths, remark, ui, trec)
    found = done.evaluation._replace(
        leakage=read_leakage(run, question.split), guidance=recipe.guidance, written_levels=recipe.written_levels
    )
    if found.recall["1"] is None:
        return found
    width = found.num_beams
    if retriever.confidence is not None:
        asked = ask(retriever, question, done.trie, width, ui, done.first)
        found = found._replace(confidence=judged(retriever.confidence, asked, split))
    return found._replace(
        measures=own_image(question, done.answer, two_tower, width),
        shared_captions=same_caption(question, done.answer, width),
    )


Facts = tuple[str, str | None, str, int, int]


def _searched_densely(
    run: Path,
    facts: Facts,
    retriever: TwoTowerRetriever,
    question: Question,
    two_tower: Ints,
    ui: Any,
    trec: Path | None,
) -> _Found:
    first = search_densely(retriever, question, least=LOOKED_AT if trec is None else TREC_DEPTH)
    exact = retriever.options.index == "exact"
    first_ranks = two_tower if exact else image_ranks(first, question)
    answer = rerank(retriever, question, first, ui)
    ranks = first_ranks if retriever.reranker is None else image_ranks(answer, question)
    _keep_ranks(run, facts[2], question, {DENSE_SEARCH: ranks}, ui)
    if trec is not None:
        _write_trec(trec, question, answer, "genret-two-tower")
    before = None if retriever.reranker is None else recalls(first_ranks)
    dense = recalls(two_tower)
    found = Evaluation(*facts, None, recalls(ranks), None, {}, dense, None, None, [], None, None, before)
    return _Found(found, first, None if exact and retriever.reranker is None else answer)


def _searched_by_beams(
    run: Path,
    facts: Facts,
    retriever: GenerativeRetriever,
    question: Question,
    two_tower: Ints,
    widths: list[int],
    remark: str | None,
    ui: Any,
    trec: Path | None,
) -> _Found:
    named, identifiers = by_image(retriever.catalog.read_identifiers(split=question.split))
    if not len(named):
        nothing = dict.fromkeys(map(str, CUTOFFS))
        by_width = dict.fromkeys(widths, nothing)
        dense = recalls(two_tower)
        return _Found(Evaluation(*facts, widths[-1], nothing, nothing, by_width, dense, None, None, [], None, remark))
    index = index_trie(retriever.backbone, identifiers, np.arange(len(question.keys)), retriever.options.end_symbol)
    leaf_table = leaves_of_images(index, len(question.keys))
    searched = {width: search_beams(retriever, question, index, leaf_table, width, ui) for width in widths}
    main, reranks = searched[widths[-1]], retriever.reranker is not None
    final = {width: rerank(retriever, question, found.ranked, ui) for width, found in searched.items()}
    final_ranks = {width: image_ranks(found, question) for width, found in final.items()}
    _keep_ranks(run, facts[2], question, {beams(width): ranks for width, ranks in final_ranks.items()}, ui)
    dense_order = _dense_order_ranks(main.ranked, question)
    ceiling = ceiling_ranks(retriever, identifiers, question)
    trace = Trace(
        dense_ranks=two_tower,
        ceiling_ranks=two_tower if ceiling is None else ceiling,
        prefix_ranks=main.prefix_ranks,
        identifier_ranks=main.identifier_ranks,
        image_ranks=main.image_ranks,
        reranked_ranks=final_ranks[widths[-1]] if reranks else dense_order,
        forced_scores=forced_scores(retriever, question, index, leaf_table, ui),
        beam_scores=main.beam_scores,
    )
    answer = final[widths[-1]]
    if trec is not None:
        _write_trec(trec, question, answer, f"genret-{widths[-1]}-beams")
    found = Evaluation(
        *facts,
        widths[-1],
        recalls(final_ranks[widths[-1]], num_beams=widths[-1]),
        recalls(main.identifier_ranks, num_beams=widths[-1]),
        {width: recalls(ranks, num_beams=width) for width, ranks in final_ranks.items()},
        recalls(two_tower),
        None if ceiling is None else recalls(ceiling),
        recalls(dense_order, num_beams=widths[-1]),
        ledger(trace, k=max(CUTOFFS)),
        _statistics(identifiers, index, retriever.identifier.vokens.sizes),
        remark,
        recalls(main.image_ranks, num_beams=widths[-1]) if reranks else None,
    )
    return _Found(found, main.ranked, answer, index)


def _dense_order_ranks(ranked: Ranked, question: Question) -> Ints:
    """(Q,) ranks from 1 of the right images when the beams' images are put into dense order."""
    images = torch.from_numpy(ranked.images)
    ranks = []
    for start in range(0, len(images), 256):
        part = images[start : start + 256]
        scores = torch.einsum("qd,qcd->qc", question.query_features[start : start + 256], question.features[part])
        order = scores.masked_fill(part < 0, -torch.inf).argsort(dim=1, descending=True, stable=True)
        relevant = torch.from_numpy(question.relevant[start : start + 256])[:, None]
        ranks.append(first_rank(part.gather(1, order), relevant))
    return np.concatenate(ranks)


def ceiling_ranks(retriever: GenerativeRetriever, identifiers: Identifiers, question: Question) -> Ints | None:
    """(Q,) ranks from 1 of a dense search by what the codes still say of the images; None if they say nothing."""
    if identifiers.codes is None or (found := retriever.identifier.reconstruct(identifiers.codes)) is None:
        return None
    first = torch.full((len(question.keys),), len(identifiers.owners)).scatter_reduce(
        0, identifiers.owners, torch.arange(len(identifiers.owners)), "amin"
    )
    return dense_ranks(question.query_features, found[first], question.relevant)


def _statistics(identifiers: Identifiers, index: ImageTrie, sizes: tuple[int, ...]) -> dict[str, Any]:
    """How well the identifiers tell these images apart."""
    buckets = index.leaf_images.sizes(np.arange(index.trie.num_leaves))
    levels = [] if identifiers.codes is None else usage_statistics(identifiers.codes, sizes)
    return {
        "unique_rate": float((buckets == 1).sum() / max(1, buckets.sum())),
        "max_bucket": int(buckets.max(initial=0)),
        "perplexity": [round(level.perplexity, 2) for level in levels],
    }


def _keep_ranks(run: Path, split: str, question: Question, found: dict[str, Ints], ui: Any) -> None:
    """So that `genret compare` can pair queries; a run on a disk that is only read is evaluated all the same."""
    try:
        write_ranks(run, split, question.queries, question.relevant, question.image_ids, found)
    except OSError as error:
        ui.warn(f"the ranks of single queries are not kept in {run}: {error.strerror or error}")


def _write_trec(folder: Path, question: Question, ranked: Ranked, tag: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    query_ids = [f"q{row}" for row in range(len(question.queries))]
    image_ids = [[question.image_ids[image] for image in row if image >= 0] for row in ranked.images]
    scores = [row[: len(ids)].tolist() for row, ids in zip(ranked.scores, image_ids, strict=True)]
    write_run(folder / "run.trec", query_ids, image_ids, scores, tag)
    write_qrels(folder / "qrels.trec", query_ids, [[question.image_ids[row]] for row in question.relevant])
