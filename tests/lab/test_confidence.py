"""Signals by hand, calibration against scipy, separation against its definition."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import mannwhitneyu

from genret.api import Silent
from genret.components.retrievers.signals import NAMES, WIDEST_MARGIN, beam_signals
from genret.errors import GenretError, UsageError
from genret.evaluate.metrics import Relevant
from genret.evaluate.queries import QuerySet
from genret.lab.confidence.calibration import SignalSets, auroc, calibration_error, fit, judge, regress
from genret.lab.confidence.evaluator import _without
from genret.search.confidence import (
    FARTHEST,
    FILE,
    SIMILARITY_SIGNALS,
    Confidence,
    checked_threshold,
    read_confidence,
    similarity_signals,
)
from genret.search.ranking import Ranked
from tests.search.fakes import generative, image, in_memory, two_tower


def ranked(images: list[list[int]], scores: list[list[float]], leaves: list[list[int]] | None = None) -> Ranked:
    return Ranked(np.array(images), np.array(scores, np.float32), np.array(leaves or images))


def test_signals_of_identifiers() -> None:
    inf = np.inf
    found = beam_signals(
        ranked(
            [[5, 6, 7, -1], [3, -1, -1, -1], [-1, -1, -1, -1]],
            [[-1.0, -1.0, -3.0, -inf], [-2.0, -inf, -inf, -inf], [-inf] * 4],
            [[0, 0, 1, 0], [2, 0, 0, 0], [0] * 4],
        )
    )
    p = np.exp([-1.0, -3.0])  # two images of one identifier are one piece of evidence
    share = p / p.sum()
    assert found[0] == pytest.approx([-1, np.log(p.sum()), 2, -(share * np.log(share)).sum()])
    assert found[1] == pytest.approx([-2, -2, WIDEST_MARGIN, 0])
    assert len(NAMES) == 4 and found[2, 0] == -inf and not np.isnan(found).any()


def test_signals_look_at_ten_identifiers_however_many_beams() -> None:
    scores = -np.arange(30, dtype=np.float32)[None]
    images = np.arange(30)[None]
    few = Ranked(images[:, :10], scores[:, :10], images[:, :10])
    assert beam_signals(Ranked(images, scores, images)) == pytest.approx(beam_signals(few))


def test_signals_of_cosines() -> None:
    found = similarity_signals(ranked([[5, 6, 7], [3, -1, -1]], [[0.9, 0.7, 0.2], [0.4, -np.inf, -np.inf]]))
    assert found == pytest.approx(np.array([[0.9, 0.2, 0.9 - 0.45], [0.4, 0.4, 0.4]]))


@pytest.mark.parametrize("kind", [generative, two_tower])
def test_hidden_images_are_gone_and_others_move_up(kind: Any) -> None:
    """For every query another set; against a catalog from which these images were removed."""
    random = np.random.default_rng(0)
    images = [
        image(f"i{n}", [tuple(random.integers(0, 3, random.integers(1, 4)))], random.normal(size=2)) for n in range(9)
    ]
    queries = [f"{x:.2f} {y:.2f}" for x, y in random.normal(size=(6, 2))]
    hidden = Relevant.of([random.choice(9, random.integers(1, 8), replace=False) for _ in queries])

    def found(retriever: Any, hidden: Relevant, queries: list[str]) -> Ranked:
        vectors = two_tower(retriever.catalog).text_vectors(queries)
        keys, nothing = retriever.catalog.keys_of([one.image_id for one in images]), torch.zeros(9, 2)
        sample = QuerySet(
            split="test",
            keys=keys,
            image_ids=[],
            features=nothing,
            queries=queries,
            relevant=np.zeros(len(queries), np.int64),
            query_features=vectors,
        )
        with retriever.opened() as (_, index):
            pass  # a catalog in memory is read by one at a time
        return _without(retriever, sample, index, 40, hidden, "", Silent())

    everything = kind(in_memory())
    everything.catalog.add(images)
    together = found(everything, hidden, queries)
    for query, text in enumerate(queries):
        gone = hidden.rows[hidden.queries == query]
        others = kind(in_memory())
        others.catalog.add(images)
        others.catalog.remove([f"i{row}" for row in gone])
        nothing = Relevant(np.zeros(0, np.int64), np.zeros(0, np.int64), 1)
        alone, left = found(others, nothing, [text]), 9 - len(gone)
        assert (alone.images[0] >= 0).sum() == left, "all that are left are found"
        assert together.images[query, :left].tolist() == alone.images[0, :left].tolist()
        assert together.scores[query, :left] == pytest.approx(alone.scores[0, :left], abs=1e-5)
        assert (together.images[query, left:] == -1).all() and np.isneginf(together.scores[query, left:]).all()


def test_auroc_is_mann_and_whitneys() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        positive = random.integers(0, 9, random.integers(1, 40)).astype(float)
        negative = random.integers(0, 9, random.integers(1, 40)).astype(float)
        expected = mannwhitneyu(positive, negative).statistic / (len(positive) * len(negative))
        assert auroc(positive, negative) == pytest.approx(expected)


def test_calibration_error_by_hand() -> None:
    sure = np.array([0.12, 0.18, 0.55, 0.55, 1.0])
    answerable = np.array([False, True, True, True, False])
    assert calibration_error(sure, answerable) == pytest.approx((2 * 0.35 + 2 * 0.45 + 1 * 1.0) / 5)


def test_regression_is_scipys_minimum() -> None:
    random = np.random.default_rng(1)
    x = random.normal(size=(200, 3))
    y = random.random(200) < 1 / (1 + np.exp(-(x @ [1.0, -2.0, 0.0] + 0.5)))

    def loss(parameters: np.ndarray) -> float:
        logits = x @ parameters[:3] + parameters[3]
        return float(np.mean(np.logaddexp(0, logits) - y * logits) + 0.01 / 2 * (parameters[:3] ** 2).sum())

    weights, bias = regress(x, y)
    assert [*weights, bias] == pytest.approx(minimize(loss, np.zeros(4), tol=1e-12).x, abs=1e-4)


def asked(seed: int, count: int = 4000, apart: float = 1.0) -> SignalSets:
    random = np.random.default_rng(seed)
    shift = np.array([apart, 0.5, 0.0])
    return SignalSets(random.normal(size=(count, 3)) + shift, random.normal(size=(count, 3)), None, 100)


def test_what_was_fitted_holds_elsewhere() -> None:
    confidence = fit(asked(0), SIMILARITY_SIGNALS, "dev")
    assert confidence is not None and confidence.fitted["split"] == "dev"
    found = judge(confidence, asked(1), "test")
    # of two normal distributions a distance d apart, Φ(d / √2)
    assert found.auroc == pytest.approx(0.7854, abs=0.015) and found.ece < 0.03
    half = found.thresholds[1]
    assert half["threshold"] == 0.5 and half["recall"] == pytest.approx(half["rejected"], abs=4)
    assert sum(one["queries"] for one in found.bins) == 8000
    same = judge(confidence, asked(1)._replace(no_answer=asked(1).all_there), "test")
    assert same.auroc_no_answer == pytest.approx(0.5)


def test_too_little_to_fit() -> None:
    assert fit(asked(0, count=5), SIMILARITY_SIGNALS, "dev") is None
    nothing = asked(0, count=50)._replace(nothing_alike=np.full((50, 3), -np.inf))
    assert fit(nothing, SIMILARITY_SIGNALS, "dev") is None


def test_nothing_found_is_no_confidence_and_far_signals_do_not_run_away() -> None:
    plain = Confidence(list(SIMILARITY_SIGNALS), [0.0] * 3, [1.0] * 3, [1.0, 0.0, 0.0], 0.0, {})
    sure = plain.of_signals(np.array([[-np.inf, 0, 0], [1e9, 0, 0], [0, 0, 0]]))
    assert sure == pytest.approx([0, 1 / (1 + np.exp(-FARTHEST)), 0.5])


def test_files(tmp_path: Path) -> None:
    assert read_confidence(tmp_path, SIMILARITY_SIGNALS) is None
    plain = Confidence(list(SIMILARITY_SIGNALS), [0.0] * 3, [1.0] * 3, [1.0, 0.0, 0.0], 0.25, {"split": "dev"})
    path = tmp_path / FILE
    path.write_text(json.dumps(plain.as_json()))
    assert read_confidence(tmp_path, SIMILARITY_SIGNALS) == plain
    for spoilt in ("{", json.dumps(plain.as_json() | {"format": 0}), json.dumps(plain.as_json() | {"weights": [1]})):
        path.write_text(spoilt)
        with pytest.raises(GenretError, match="genret evaluate --calibrate"):
            read_confidence(tmp_path, SIMILARITY_SIGNALS)
    path.write_text(json.dumps(plain.as_json()))
    with pytest.raises(GenretError, match="genret evaluate --calibrate"):
        read_confidence(tmp_path, NAMES)


def test_thresholds() -> None:
    plain = Confidence(list(SIMILARITY_SIGNALS), [0.0] * 3, [1.0] * 3, [1.0, 0.0, 0.0], 0.0, {})
    assert checked_threshold(None, None) is None and checked_threshold(0.5, plain) == 0.5
    with pytest.raises(UsageError, match="from 0 to 1"):
        checked_threshold(1.5, plain)
    with pytest.raises(UsageError, match="--calibrate"):
        checked_threshold(0.5, None)
