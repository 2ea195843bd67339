"""Calibration: signals of answerable and unanswerable queries → a probability, and its quality.

`evaluator.py` runs the searches.

    n queries   F signals
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from genret.search.confidence import Confidence

Floats = NDArray[np.float64]

FEWEST = 10
"""Minimum number of development queries for a fit."""
PENALTY = 1e-2
"""L2 penalty of the weights, for samples that are separable by chance."""
BINS = 10
"""Number of bins, of equal width, of the expected calibration error (Guo et al. 2017, Eqn. 5)."""
THRESHOLDS = (0.3, 0.5, 0.7)


class SignalSets(NamedTuple):
    """Signals (n, F) of the same queries over three catalogs."""

    all_there: Floats
    nothing_alike: Floats
    """Without the answers and images similar to them"""
    no_answer: Floats | None
    """Without the answers"""
    num_images: int


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How well a confidence separates answerable from unanswerable queries."""

    split: str
    num_queries: int
    """Each searched with all images, and without its answers and similar ones: equally many of both"""
    num_images: int
    auroc: float
    """p(higher confidence with all images than without answers and similar ones), ties count half; 0.5 is chance"""
    auroc_no_answer: float | None
    """the same against leaving out only the answers, the strictest meaning of unanswerable"""
    ece: float
    """expected calibration error, 0 to 1: mean distance between confidence and share of answerable queries, by bins"""
    thresholds: list[dict[str, float | None]]
    """by `threshold`, in percent: `precision` and `recall` of answerable queries, `rejected` of unanswerable ones"""
    bins: list[dict[str, float]]
    """reliability diagram: `confidence` and `answerable` (means) and `queries` of each bin that has any"""

    def as_json(self) -> dict[str, Any]:
        return dict(vars(self))


def fit(asked: SignalSets, signals: Sequence[str], split: str) -> Confidence | None:
    """Logistic regression on standardized signals; None if too few queries found anything."""
    known, answerable = _labelled(asked)
    there = np.isfinite(known).all(axis=1)
    known, answerable = known[there], answerable[there]
    if min(answerable.sum(), (~answerable).sum()) < FEWEST:
        return None
    mean, scale = known.mean(axis=0), np.maximum(known.std(axis=0), 1e-6)
    weights, bias = regress((known - mean) / scale, answerable)
    plain = Confidence(list(signals), mean.tolist(), scale.tolist(), weights.tolist(), bias, {})
    return plain._replace(fitted=judge(plain, asked, split).as_json())


def regress(x: Floats, y: NDArray[np.bool_], penalty: float = PENALTY) -> tuple[Floats, float]:
    """x (n, F), y (n,) → weights (F,) and bias that minimize the mean log loss + penalty / 2 · |weights|²."""
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y).double()
    parameters = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        weights, bias = parameters[:-1], parameters[-1]
        value = torch.nn.functional.binary_cross_entropy_with_logits(inputs @ weights + bias, labels)
        value = value + penalty / 2 * weights.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    found = parameters.detach().numpy()
    return found[:-1], float(found[-1])


def judge(confidence: Confidence, asked: SignalSets, split: str) -> Separation:
    """The quality of the confidence on these queries."""
    known, answerable = _labelled(asked)
    sure = confidence.of_signals(known)
    strictly = asked.no_answer
    return Separation(
        split=split,
        num_queries=len(asked.all_there),
        num_images=asked.num_images,
        auroc=auroc(sure[answerable], sure[~answerable]),
        auroc_no_answer=None if strictly is None else auroc(sure[answerable], confidence.of_signals(strictly)),
        ece=calibration_error(sure, answerable),
        thresholds=[_at(threshold, sure, answerable) for threshold in THRESHOLDS],
        bins=_bins(sure, answerable),
    )


def _labelled(asked: SignalSets) -> tuple[Floats, NDArray[np.bool_]]:
    """(2n, F) and (2n,) whether they are answerable"""
    both = np.concatenate([asked.all_there, asked.nothing_alike])
    return both, np.arange(len(both)) < len(asked.all_there)


def auroc(positive: Floats, negative: Floats) -> float:
    """p(a positive is higher than a negative) + p(equal) / 2: Mann and Whitney's U over the number of pairs."""
    ordered = np.sort(negative)
    below, upto = np.searchsorted(ordered, positive, "left"), np.searchsorted(ordered, positive, "right")
    return float((below + upto).sum() / 2 / max(1, len(positive) * len(negative)))


def calibration_error(sure: Floats, answerable: NDArray[np.bool_]) -> float:
    """Σ over bins of their share of the queries · |mean confidence − share of answerable ones|."""
    bins = _bins(sure, answerable)
    return sum(one["queries"] * abs(one["confidence"] - one["answerable"]) for one in bins) / max(1, len(sure))


def _bins(sure: Floats, answerable: NDArray[np.bool_]) -> list[dict[str, float]]:
    place = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
    return [
        {
            "confidence": float(sure[place == one].mean()),
            "answerable": float(answerable[place == one].mean()),
            "queries": int((place == one).sum()),
        }
        for one in np.unique(place)
    ]


def _at(threshold: float, sure: Floats, answerable: NDArray[np.bool_]) -> dict[str, float | None]:
    kept = sure >= threshold
    return {
        "threshold": threshold,
        "precision": 100.0 * float(answerable[kept].mean()) if kept.any() else None,
        "recall": 100.0 * float(kept[answerable].mean()),
        "rejected": 100.0 * float((~kept[~answerable]).mean()),
    }
