"""`genret evaluate`: searches a split's images by their captions; says what is found and where the rest is lost.

Q queries   N images   b beams   M levels
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genret.assemble import components, open_retriever, run_recipe
from genret.encoders.cache import FeatureCache
from genret.encoders.encode import encode_texts
from genret.errors import UnknownName
from genret.evaluate.ledger import LedgerRow, Trace, ledger
from genret.evaluate.metrics import CUTOFFS, MISSED, Recalls, recalls
from genret.evaluate.ranks import DENSE_SEARCH, TWO_TOWER, beams, write_ranks
from genret.evaluate.rerank import rerank, search_densely
from genret.evaluate.tables import evaluation_tables
from genret.evaluate.trec import write_qrels, write_run
from genret.interfaces import Identifier, Identifiers
from genret.quantize.rq import usage_statistics
from genret.recipe import Recipe
from genret.registry import Registries
from genret.retrievers.catalog import CatalogRetriever
from genret.retrievers.dense import dense_ranks
from genret.retrievers.generative import GenerativeRetriever, IndexedTrie, by_image, columns_of, index_trie, search_trie
from genret.retrievers.ranking import Ranked, rank_images
from genret.retrievers.two_tower import TwoTowerRetriever
from genret.settings import Settings

Ints = NDArray[np.int64]
TREC_DEPTH = 100
"""Images of each query in the run files of dense searches."""


class Evaluation(NamedTuple):
    """Everything that was measured on one split; recalls in percent."""

    protocol: str
    concepts: str | None
    split: str
    num_queries: int
    num_images: int
    num_beams: int | None
    recall: Recalls
    identifier_recall: Recalls | None
    by_num_beams: dict[int, Recalls]
    two_tower: Recalls
    ceiling: Recalls | None
    reranked: Recalls | None
    ledger: list[LedgerRow]
    identifier: dict[str, Any] | None
    remark: str | None = None
    """Why figures cannot exist (then they are null), or what they cannot say"""
    first_stage: Recalls | None = None
    """Of the search before the recipe's reranker; None where it has none"""

    def as_json(self) -> dict[str, Any]:
        return self._asdict() | {
            "by_num_beams": {str(b): figures for b, figures in self.by_num_beams.items()},
            "ledger": [row.as_json() for row in self.ledger],
        }

    def tables(self) -> list[Any]:
        """Rich tables for people."""
        return evaluation_tables(self)


class Searched(NamedTuple):
    """One pass of the generator over all queries, with b beams."""

    ranked: Ranked
    image_ranks: Ints
    identifier_ranks: Ints
    prefix_ranks: Ints
    """(Q, M) from 1, where the right prefix stood among the surviving ones of its level; MISSED where it had gone"""
    beam_scores: NDArray[np.float32]
    """(Q, b)"""


class Question(NamedTuple):
    """A split's images and captions, ready to be searched."""

    split: str
    keys: Ints
    """(N,) catalog keys, ascending"""
    image_ids: list[str]
    features: Tensor
    """(N, D)"""
    queries: list[str]
    relevant: Ints
    """(Q,) rows of the images"""
    query_features: Tensor
    """(Q, D)"""


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
    question = _question(retriever, dataset.test_split if split == "test" else split, settings, ui)
    facts = (recipe.protocol, dataset.concepts, split, len(question.queries), len(question.keys))
    two_tower = dense_ranks(question.query_features, question.features, question.relevant)
    _keep_ranks(run, split, question, {TWO_TOWER: two_tower}, ui)
    if isinstance(retriever, TwoTowerRetriever):
        first = search_densely(retriever, question, least=0 if trec is None else TREC_DEPTH)
        exact = retriever.options.index == "exact"
        first_ranks = two_tower if exact else _image_ranks(first, question)
        final = rerank(retriever, question, first, ui)
        final_ranks = first_ranks if retriever.reranker is None else _image_ranks(final, question)
        _keep_ranks(run, split, question, {DENSE_SEARCH: final_ranks}, ui)
        if trec is not None:
            _write_trec(trec, question, final, "genret-two-tower")
        before = None if retriever.reranker is None else recalls(first_ranks)
        found = recalls(final_ranks)
        return Evaluation(*facts, None, found, None, {}, recalls(two_tower), None, None, [], None, first_stage=before)
    assert isinstance(retriever, GenerativeRetriever)
    widths = list(num_beams) or [recipe.search.num_beams]
    remark = _remark(retriever.identifier, recipe)
    named, identifiers = by_image(retriever.catalog.read_identifiers(split=question.split))
    if not len(named):
        nothing = dict.fromkeys(map(str, CUTOFFS))
        by_width = dict.fromkeys(widths, nothing)
        found = recalls(two_tower)
        return Evaluation(
            *facts, widths[-1], nothing, nothing, by_width, found, None, None, [], None, f"not applicable: {remark}"
        )
    index = index_trie(retriever.backbone, identifiers, np.arange(len(question.keys)), recipe.search.end_symbol)
    leaf_table = _leaves_of_images(index, len(question.keys))
    searched = {width: _search(retriever, question, index, leaf_table, width, ui) for width in widths}
    main, reranks = searched[widths[-1]], retriever.reranker is not None
    final = {width: rerank(retriever, question, found.ranked, ui) for width, found in searched.items()}
    final_ranks = {width: _image_ranks(found, question) for width, found in final.items()}
    _keep_ranks(run, split, question, {beams(width): ranks for width, ranks in final_ranks.items()}, ui)
    dense_order = _dense_order_ranks(main.ranked, question)
    ceiling = _ceiling_ranks(retriever, identifiers, question)
    trace = Trace(
        dense_ranks=two_tower,
        ceiling_ranks=two_tower if ceiling is None else ceiling,
        prefix_ranks=main.prefix_ranks,
        identifier_ranks=main.identifier_ranks,
        image_ranks=main.image_ranks,
        reranked_ranks=final_ranks[widths[-1]] if reranks else dense_order,
        forced_scores=_forced_scores(retriever, question, index, leaf_table, ui),
        beam_scores=main.beam_scores,
    )
    if trec is not None:
        _write_trec(trec, question, final[widths[-1]], f"genret-{widths[-1]}-beams")
    return Evaluation(
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


def _remark(identifier: Identifier, recipe: Recipe) -> str | None:
    """What the scheme cannot do for pictures that it was not fitted on, where the searched ones were not."""
    if identifier.new_images == "described" or recipe.protocol == "transductive-pseudo":
        return None
    assert recipe.identifier is not None
    name = recipe.identifier.type
    if identifier.new_images == "refused" and recipe.protocol == "inductive":
        return f"under protocol inductive the searched pictures get no {name} identifiers, which only training gives"
    return (
        f"chance by construction: {name} identifiers say nothing of a picture, and under protocol {recipe.protocol} no "
        "query for the searched ones was trained on"
    )


def _question(retriever: CatalogRetriever, split: str, settings: Settings, ui: Any) -> Question:
    catalog = retriever.catalog
    captions = catalog.captions(split)
    if not captions.texts:
        raise UnknownName(
            "split", split, [name for name in catalog.splits() if name], "only splits with captions can be evaluated"
        )
    keys = catalog.keys(split)
    encoder = retriever.encoder
    with FeatureCache.of_tower(settings.features_dir, encoder.tower_key("text")) as cache:
        raw = encode_texts(encoder, captions.texts, cache, progress=ui.progress, label="queries")
    with torch.no_grad():
        parts = [encoder.project_texts(part.to(retriever.device)).float().cpu() for part in raw.split(8192)]
    image_ids = [row.image_id for row in catalog.lookup(keys)]
    relevant = np.searchsorted(keys, captions.image_keys)
    return Question(split, keys, image_ids, catalog.features_of(keys), captions.texts, relevant, torch.cat(parts))


def _search(
    retriever: GenerativeRetriever, question: Question, index: IndexedTrie, leaf_table: Tensor, num_beams: int, ui: Any
) -> Searched:
    """Beam search of every query, with the ranks at which the right image and its prefixes stood."""
    parts: list[Searched] = []
    size = retriever.options.batch_size
    with ui.progress(f"search, {num_beams} beams", len(question.queries)) as bar:
        for start in range(0, len(question.queries), size):
            rows = slice(start, start + size)
            queries = question.queries[rows]
            beams = search_trie(retriever.backbone, queries, index.trie, num_beams, retriever.options, None)
            leaves, scores = beams.leaves.cpu().numpy(), beams.scores.cpu().numpy()
            similarity = partial(_similarity, question.query_features[rows], question.features)
            ranked = rank_images(leaves, scores, index.leaf_images, similarity)
            right = leaf_table[question.relevant[rows]]  # (B, A) the right image's identifiers
            prefix_ranks = [
                _first_rank(prefixes.nodes, index.trie.prefixes_of(right.to(index.trie.device), depth + 1))
                for depth, prefixes in enumerate(beams.prefixes)
            ]
            parts.append(
                Searched(
                    ranked,
                    _first_rank(torch.from_numpy(ranked.images), torch.from_numpy(question.relevant[rows])[:, None]),
                    _first_rank(beams.leaves, right.to(beams.leaves.device)),
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


def _first_rank(found: Tensor, wanted: Tensor) -> Ints:
    """found (B, w) best first, wanted (B, A), -1 pads → (B,) the best place, from 1, of any wanted one; else MISSED."""
    match = ((found[:, :, None] == wanted[:, None, :]) & (wanted != -1)[:, None, :]).any(-1)
    place = match.float().argmax(1) + 1
    return torch.where(match.any(1), place, MISSED).cpu().numpy()


def _image_ranks(ranked: Ranked, question: Question) -> Ints:
    """(Q,) ranks from 1 of the right images."""
    return _first_rank(torch.from_numpy(ranked.images), torch.from_numpy(question.relevant)[:, None])


def _leaves_of_images(index: IndexedTrie, num_images: int) -> Tensor:
    """(N, A) the leaves that lead to each image, -1 pads."""
    owners, leaves = index.identifiers.owners, index.trie.leaf_of_row.cpu()
    order = torch.argsort(owners, stable=True)
    counts = torch.bincount(owners, minlength=num_images)
    place = torch.arange(len(owners)) - (counts.cumsum(0) - counts)[owners[order]]
    table = torch.full((num_images, int(counts.max())), -1)
    table[owners[order], place] = leaves[order]
    return table


def _forced_scores(
    retriever: GenerativeRetriever, question: Question, index: IndexedTrie, leaf_table: Tensor, ui: Any
) -> NDArray[np.float32]:
    """(Q,) the model's log-probability of the right identifier (the best one, of several), beam or no beam."""
    if retriever.options.score == "trie":  # normalised over children: no beam-free score is comparable
        return np.full(len(question.queries), -np.inf, np.float32)
    trie, backbone = index.trie, retriever.backbone
    columns = columns_of(backbone, retriever.options.score, trie.depth)
    best = []
    size = retriever.options.batch_size
    with ui.progress("scores of the right identifiers", len(question.queries)) as bar, torch.inference_mode():
        for start in range(0, len(question.queries), size):
            queries = question.queries[start : start + size]
            right = leaf_table[question.relevant[start : start + size]].to(trie.device)
            scores = backbone.score(queries, trie.tokens_of(right), columns).sum(-1)
            best.append(scores.masked_fill(right < 0, -torch.inf).amax(1).float().cpu().numpy())
            bar.advance(len(queries))
    return np.concatenate(best)


def _dense_order_ranks(ranked: Ranked, question: Question) -> Ints:
    """(Q,) ranks from 1 of the right images when the beams' images are put into dense order."""
    images = torch.from_numpy(ranked.images)
    ranks = []
    for start in range(0, len(images), 256):
        part = images[start : start + 256]
        scores = torch.einsum("qd,qcd->qc", question.query_features[start : start + 256], question.features[part])
        order = scores.masked_fill(part < 0, -torch.inf).argsort(dim=1, descending=True, stable=True)
        relevant = torch.from_numpy(question.relevant[start : start + 256])[:, None]
        ranks.append(_first_rank(part.gather(1, order), relevant))
    return np.concatenate(ranks)


def _ceiling_ranks(retriever: GenerativeRetriever, identifiers: Identifiers, question: Question) -> Ints | None:
    """(Q,) ranks from 1 of a dense search by what the codes still say of the images; None if they say nothing."""
    if identifiers.codes is None or (found := retriever.identifier.reconstruct(identifiers.codes)) is None:
        return None
    first = torch.full((len(question.keys),), len(identifiers.owners)).scatter_reduce(
        0, identifiers.owners, torch.arange(len(identifiers.owners)), "amin"
    )
    return dense_ranks(question.query_features, found[first], question.relevant)


def _statistics(identifiers: Identifiers, index: IndexedTrie, sizes: tuple[int, ...]) -> dict[str, Any]:
    """How well the identifiers tell these images apart."""
    buckets = index.leaf_images.sizes(np.arange(index.trie.num_leaves))
    levels = [] if identifiers.codes is None else usage_statistics(identifiers.codes, sizes)
    return {
        "unique_rate": float((buckets == 1).sum() / max(1, buckets.sum())),
        "max_bucket": int(buckets.max(initial=0)),
        "perplexity": [round(level.perplexity, 2) for level in levels],
    }


def _stacked(parts: list[NDArray[Any]], fill: float) -> NDArray[Any]:
    """Rows of different widths, one below the other."""
    width = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(p, ((0, 0), (0, width - p.shape[1])), constant_values=fill) for p in parts])


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
