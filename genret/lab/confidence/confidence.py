"""Fits and judges a search's confidence: can it tell queries that have an answer from queries that have none?

Queries are asked of all images of a split, which hold their answers, and again with images left out, exactly, by the
restricted search, as if they had never been indexed: the answers alone, or the answers and all that looks like them. An
image answers a query if the query is one of its captions, in these words or other spelling. Where only the answer is
left out, the next best picture is often nearly as good; "nothing matches" means that nothing of its kind is there, so
that is what the confidence is fitted to, on the development split alone. Both are judged on the evaluated split.

    Q queries   n of them in the sample   N images   F signals
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genret.components.retrievers.generative import GenerativeRetriever
from genret.components.retrievers.two_tower import TwoTowerRetriever
from genret.decode.leaf_sets import LeafSets
from genret.evaluate.metrics import Relevant
from genret.evaluate.question import Question, answers_of, question_of
from genret.kit.files import write_json
from genret.lab.confidence.calibration import Asked, Floats, fit, judge
from genret.plugin.registry import Registries
from genret.recipe.parts import components
from genret.run import open_retriever, run_recipe
from genret.search.catalog import CatalogRetriever
from genret.search.confidence import FILE, LOOKED_AT, Confidence, Kind, signals
from genret.search.dense import dense_search
from genret.search.image_trie import ImageTrie, index_trie
from genret.search.ranking import Ranked, rank_images
from genret.search.restrict import Allowed
from genret.search.spelling import by_image
from genret.settings import Settings

SAMPLE = 300
"""Queries that are asked again, at most."""
ALIKE = 0.05
"""Share of a split's images, those nearest to an answer in the shared space, that count as alike. A share, so
that the hole is as large where images are many as where they are few."""


def ask(
    retriever: CatalogRetriever,
    question: Question,
    index: ImageTrie | None,
    num_beams: int | None,
    ui: Any,
    ranked: Ranked | None = None,
    strictly: bool = True,
) -> Asked:
    """Asks a fixed sample of the queries. index: of the split's images, where identifiers are searched. ranked: what
    the first stage found for all Q queries, if that is known. strictly: also without the answers alone."""
    size = len(question.queries)
    rows = np.sort(np.random.default_rng(0).permutation(size)[:SAMPLE])
    sample = question._replace(
        queries=[question.queries[row] for row in rows],
        relevant=question.relevant[rows],
        query_features=question.query_features[torch.from_numpy(rows)],
    )
    answers = answers_of(question).of_queries(rows)

    def found(label: str, hidden: Relevant) -> Floats:
        with ui.progress(f"confidence, {label}", len(rows)) as bar:
            if isinstance(retriever, TwoTowerRetriever):
                ranked = _dense(sample, hidden)
                bar.advance(len(rows))
            else:
                assert isinstance(retriever, GenerativeRetriever) and index is not None and num_beams is not None
                ranked = _generated(retriever, sample, index, num_beams, hidden, bar)
        return signals(ranked, kind_of(retriever))

    if ranked is None:
        nothing = Relevant(np.zeros(0, np.int64), np.zeros(0, np.int64), len(rows))
        all_there = found("all there", nothing)
    else:
        all_there = signals(Ranked(ranked.images[rows], ranked.scores[rows], ranked.leaves[rows]), kind_of(retriever))
    nothing_alike = found("nothing alike", alike(answers, question.features))
    return Asked(all_there, nothing_alike, found("answers left out", answers) if strictly else None, len(question.keys))


def alike(answers: Relevant, features: Tensor) -> Relevant:
    """Each query's answers and the images nearest to them, `ALIKE` of all images (N, D) for each."""
    count = max(1, round(ALIKE * len(features)))
    near = dense_search(features[torch.from_numpy(answers.rows)], features, count).rows.numpy()
    rows: list[set[int]] = [set() for _ in range(answers.num_queries)]
    for query, row, others in zip(answers.queries.tolist(), answers.rows.tolist(), near.tolist(), strict=True):
        rows[query] |= {row, *others}
    return Relevant.of(rows)


def kind_of(retriever: CatalogRetriever) -> Kind:
    return "two-tower" if isinstance(retriever, TwoTowerRetriever) else "generative"


def judged(confidence: Confidence, asked: Asked, split: str) -> dict[str, Any]:
    """`judge`, and where the confidence comes from, as evaluations report it."""
    facts = ("split", "num_queries", "num_images", "auroc", "ece")
    return judge(confidence, asked, split).as_json() | {"fitted": {fact: confidence.fitted[fact] for fact in facts}}


def calibrate(run: Path, registries: Registries, settings: Settings, ui: Any) -> Confidence | None:
    """Fits a run's confidence on its development split and stores it in the run. None, and nothing stored, where that
    split cannot tell: without captions, with too few, or where its images' identifiers could only be guessed."""
    (run / FILE).unlink(missing_ok=True)
    recipe = run_recipe(run, registries)
    retriever = open_retriever(run, registries, settings)
    split = components(recipe, registries).dataset.dev_split
    if not retriever.catalog.captions(split).texts:
        return None
    question = question_of(retriever, split, settings, ui)
    index = None
    if isinstance(retriever, GenerativeRetriever):
        named, identifiers = by_image(retriever.catalog.read_identifiers(split=split))
        if retriever.identifier.new_images != "described" or len(named) < len(question.keys):
            return None
        index = index_trie(retriever.backbone, identifiers, np.arange(len(named)), recipe.search.end_symbol)
    asked = ask(retriever, question, index, retriever.num_beams, ui, strictly=False)
    confidence = fit(asked, kind_of(retriever), split)
    if confidence is not None:
        write_json(run / FILE, confidence.as_json())
    return confidence


# --------------------------------------------------------------------------------------- searches without the answers
def _dense(question: Question, hidden: Relevant) -> Ranked:
    """Exact search for so many images that enough are left when the hidden ones are taken out."""
    count = min(LOOKED_AT + int(hidden.counts.max(initial=0)), len(question.keys))
    found = dense_search(question.query_features, question.features, count)
    return without(Ranked(found.rows.numpy(), found.scores.numpy(), np.full(found.rows.shape, -1)), hidden)


def _generated(
    retriever: GenerativeRetriever, question: Question, index: ImageTrie, num_beams: int, hidden: Relevant, bar: Any
) -> Ranked:
    """Beam search in the trie of what is left: an identifier goes only if all of its images do."""
    parts: list[Ranked] = []
    size = retriever.options.batch_size
    for start in range(0, len(question.queries), size):
        queries = question.queries[start : start + size]
        part = hidden.of_queries(np.arange(start, start + len(queries)))
        allowed = None
        if len(part.rows):
            rows = np.split(part.rows, np.cumsum(part.counts)[:-1])
            allowed = LeafSets.of([index.leaves_for(Allowed(without=one)) for one in rows])
        features = question.query_features[start : start + len(queries)]
        beams = retriever.beams(queries, features, index.trie, num_beams, allowed)
        ranked = rank_images(beams.leaves.cpu().numpy(), beams.scores.cpu().numpy(), index.leaf_images)
        parts.append(without(ranked, part))
        bar.advance(len(queries))
    width = max(part.images.shape[1] for part in parts)
    return Ranked(*(np.concatenate(columns) for columns in zip(*(part.padded(width) for part in parts), strict=True)))


def without(ranked: Ranked, hidden: Relevant) -> Ranked:
    """`ranked` as if the hidden images of each query were not there; later ones move up."""
    stride = int(max(ranked.images.max(initial=0), hidden.rows.max(initial=0))) + 1
    keys = np.arange(len(ranked.images))[:, None] * stride + ranked.images
    keep = (ranked.images >= 0) & ~np.isin(keys, hidden.queries * stride + hidden.rows)
    order = np.argsort(~keep, axis=1, kind="stable")
    scores = np.where(keep, ranked.scores, -np.inf).astype(np.float32)
    return Ranked(np.where(keep, ranked.images, -1), scores, ranked.leaves).take(order)
