"""Fits and evaluates a search's confidence: does it separate queries with an answer from queries without?

Each query is searched over all images of a split, answers included, and again with images excluded by the restricted
search, exactly as if they were not indexed: the answers alone, or the answers and all similar images. An image answers
a query if the query is one of its captions, after normalization. If only the answer is excluded, the next best image is
often nearly as good; "nothing matches" means that nothing similar exists. So the confidence is fitted to the second
case, on the development split alone; without captions, to sentences that have an image to themselves
(`sentences.py`). Both cases are evaluated on the evaluated split.

    Q queries   n of them in the sample   N images   F signals
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from genret.api import Evaluator, Ui
from genret.evaluate.evaluation import Evaluated
from genret.evaluate.metrics import Ints, Relevant
from genret.evaluate.queries import QuerySet, answers_of, query_set
from genret.kit.files import write_json
from genret.lab.confidence.calibration import Floats, SignalSets, fit, judge
from genret.lab.confidence.sentences import expect, sentence_queries, telling
from genret.search.catalog import CatalogRetriever
from genret.search.confidence import FILE, Confidence
from genret.search.dense import dense_search
from genret.search.ranking import Ranked
from genret.search.restrict import Allowed

if TYPE_CHECKING:
    from genret.run import Run

SAMPLE = 300
"""Maximum number of queries searched again."""
ALIKE = 0.05
"""Share of a split's images, nearest to an answer in the shared space, that count as similar. It is a share, so that it
does not depend on the number of images."""


class ConfidenceEvaluator(Evaluator):
    """How well a search's confidence separates queries with an answer from queries without."""

    def after_training(self, run: Run, ui: Ui) -> None:
        has_captions = bool(run.catalog.captions(run.dataset.dev_split).texts)
        asked = None if has_captions else sentence_queries(run, ui)
        told = None if asked is None else expect(run, asked, telling(asked))
        if calibrate(run, ui) is None:
            split = run.dataset.dev_split
            ui.note(f"confidence: the split '{split}' is too small or says nothing; searches go without one")
        for line in () if told is None else told.lines():
            ui.note(line)

    def evaluate(self, run: Run, found: Evaluated, ui: Ui) -> dict[str, Any] | None:
        confidence = found.retriever.confidence
        if confidence is None or found.index is None:
            return None
        asked = ask(found.retriever, found.asked, found.index, found.evaluation.num_beams, ui, found.first)
        facts = ("split", "num_queries", "num_images", "auroc", "ece")
        fitted = {fact: confidence.fitted[fact] for fact in facts}
        return judge(confidence, asked, found.evaluation.split).as_json() | {"fitted": fitted}

    def tables(self, figures: dict[str, Any] | None, split: str) -> list[Any]:
        if figures is None:
            return []
        alone = figures["auroc_no_answer"]
        half = next(one for one in figures["thresholds"] if one["threshold"] == 0.5)
        said = (
            f"confidence: AUROC {figures['auroc']:.2f} where nothing of the kind is left to find",
            "" if alone is None else f", {alone:.2f} where the answer alone is missing",
            f"; expected calibration error {figures['ece']:.2f}; at 0.5 it keeps {half['recall']:.0f} % of the ",
            f"answerable queries and rejects {half['rejected']:.0f} % of the others ({figures['num_queries']:,} ",
            f"queries; fitted on '{figures['fitted']['split']}')",
        )
        return ["".join(said)]


def calibrate(run: Run, ui: Ui) -> Confidence | None:
    """Fits a run's confidence on its development split and stores it in the run. None, and nothing stored, if that
    split has too few captions or its images' identifiers could only be guessed."""
    (run.folder / FILE).unlink(missing_ok=True)
    retriever, split = run.retriever, run.dataset.dev_split
    retriever.confidence = None
    if retriever.catalog.captions(split).texts:
        asked = query_set(retriever, split, run.settings.features_dir, ui.progress)
    elif (sentences := sentence_queries(run, ui)) is not None:
        asked = telling(sentences)
    else:
        return None
    with retriever.catalog.snapshot() as snapshot:
        index = retriever.build_index(snapshot, asked.keys)
        inspection = retriever.inspect(snapshot, index, asked.keys)
        named = not run.recipe.has_identifiers or len(np.unique(snapshot.identifiers_of(asked.keys).image_keys))
    if index is None or not inspection.content_based or (named is not True and named < len(asked.keys)):
        return None
    answers = ask(retriever, asked, index, retriever.num_beams, ui, strictly=False)
    confidence = fit(answers, retriever.signal_names, split)
    if confidence is not None:
        write_json(run.folder / FILE, confidence.as_json())
        retriever.confidence = confidence
    return confidence


def ask(
    retriever: CatalogRetriever,
    asked: QuerySet,
    index: Any,
    num_beams: int | None,
    ui: Ui,
    first: Ranked | None = None,
    strictly: bool = True,
) -> SignalSets:
    """Searches a fixed sample of the queries. first: the first stage's results for all Q queries, if known. strictly:
    also searches without only the answers."""
    size = len(asked.queries)
    rows = np.sort(np.random.default_rng(0).permutation(size)[:SAMPLE])
    sample, answers = asked.chosen(rows), _of_queries(answers_of(asked), rows)

    def found(label: str, hidden: Relevant) -> Floats:
        return retriever.signals(_without(retriever, sample, index, num_beams, hidden, label, ui))

    if first is None:
        all_there = found("all there", Relevant(np.zeros(0, np.int64), np.zeros(0, np.int64), len(rows)))
    else:
        all_there = retriever.signals(Ranked(first.images[rows], first.scores[rows], first.leaves[rows]))
    nothing_alike = found("nothing alike", alike(answers, asked.features))
    no_answer = found("answers left out", answers) if strictly else None
    return SignalSets(all_there, nothing_alike, no_answer, len(asked.keys))


def alike(answers: Relevant, features: Tensor) -> Relevant:
    """Each query's answers and the images nearest to them, `ALIKE` of all images (N, D) for each."""
    count = max(1, round(ALIKE * len(features)))
    near = dense_search(features[torch.from_numpy(answers.rows)], features, count).rows.numpy()
    rows: list[set[int]] = [set() for _ in range(answers.num_queries)]
    for query, row, others in zip(answers.queries.tolist(), answers.rows.tolist(), near.tolist(), strict=True):
        rows[query] |= {row, *others}
    return Relevant.of(rows)


def _without(
    retriever: CatalogRetriever,
    sample: QuerySet,
    index: Any,
    num_beams: int | None,
    hidden: Relevant,
    label: str,
    ui: Ui,
) -> Ranked:
    """The first stage's results without the hidden images of each query (rows of the split)."""
    parts, size = list[Ranked](), retriever.options.batch_size
    places = np.searchsorted(hidden.queries, np.arange(len(sample.queries) + 1))
    allowed = [
        Allowed(without=sample.keys[np.sort(hidden.rows[start:stop])]) for start, stop in pairwise(places.tolist())
    ]
    with retriever.catalog.snapshot() as snapshot, ui.progress(f"confidence, {label}", len(allowed)) as bar:
        for start in range(0, len(allowed), size):
            batch = sample.batch.rows(start, start + size)
            parts.append(retriever.candidates(snapshot, index, batch, 1, num_beams, allowed[start : start + size]))
            bar.advance(len(batch))
    return Ranked.joined(parts)


def _of_queries(relevant: Relevant, chosen: Ints) -> Relevant:
    """The relevant images of these queries (ascending), renumbered from 0."""
    kept = np.isin(relevant.queries, chosen)
    return Relevant(np.searchsorted(chosen, relevant.queries[kept]), relevant.rows[kept], len(chosen))
