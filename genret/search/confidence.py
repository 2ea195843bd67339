"""Confidence of a search: a calibrated probability that the catalog holds a relevant image, from first-stage scores.

Platt's method (1999), logistic regression, over a few numbers that separate successful searches from failed ones. Uses
scores alone, neither queries nor images; it is fitted on the development split elsewhere.

    B queries   C images found   F signals
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genret.errors import GenretError, UsageError, one_line
from genret.kit.files import read_json
from genret.search.ranking import Ranked

Floats = NDArray[np.float64]

FILE = "confidence.json"
FORMAT = 2
LOOKED_AT = 10
"""Number of identifiers, or images, that are used, so that the signals hardly depend on the beam width."""
SIMILARITY_SIGNALS = ("best", "margin", "lead")
"""Of the best scores c_1 ≥ c_2 ≥ …: c_1; c_1 − c_2; c_1 − mean(c_2, …)."""
FARTHEST = 4.0
"""Signals farther from their mean, in standard deviations, are clipped: no data was seen beyond that."""


class Confidence(NamedTuple):
    """p(a relevant image exists | signals) = σ(bias + Σ weight · (signal − mean) / scale), for even odds."""

    signals: list[str]
    """Their names"""
    mean: list[float]
    """(F,)"""
    scale: list[float]
    """(F,)"""
    weights: list[float]
    """(F,)"""
    bias: float
    fitted: dict[str, Any]
    """The calibration data and the quality reached on it"""

    def of_signals(self, signals: Floats) -> Floats:
        """(B, F) → (B,) probabilities; 0 if nothing was found."""
        there = np.isfinite(signals.min(axis=1, keepdims=True))  # (B, 1)
        known = np.where(there, signals, 0.0)
        distance = np.clip((known - self.mean) / self.scale, -FARTHEST, FARTHEST)
        odds = distance @ np.array(self.weights) + self.bias
        return np.where(there[:, 0], 1.0 / (1.0 + np.exp(-odds)), 0.0)

    def as_json(self) -> dict[str, Any]:
        return {"format": FORMAT} | self._asdict()


def read_confidence(run: Path, names: Sequence[str]) -> Confidence | None:
    """The calibration stored in the run, for signals of these names; None if there is none."""
    path = run / FILE
    if not path.exists():
        return None
    try:
        found = read_json(path)
        made = Confidence(**{field: found[field] for field in Confidence._fields})
        fits = found["format"] == FORMAT and list(made.signals) == list(names)
        np.array([made.mean, made.scale, made.weights], dtype=np.float64).reshape(3, len(made.signals))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GenretError(f"{path} is damaged ({one_line(error, 80)}); {how_to_calibrate(run)}") from None
    if not fits:
        raise GenretError(f"{path} was written by another version of genret; {how_to_calibrate(run)}")
    return made


def how_to_calibrate(run: Path | str) -> str:
    return f"make it with: genret evaluate --calibrate --run {run}"


def checked_threshold(threshold: float | None, confidence: Confidence | None) -> float | None:
    """Raises `UsageError` for a threshold that is out of range, or if the run has not been calibrated."""
    if threshold is None:
        return None
    if not 0 <= threshold <= 1:
        raise UsageError(f"min_confidence is a probability from 0 to 1, not {threshold}")
    if confidence is None:
        raise UsageError(f"this run's searches have no calibrated confidence; {how_to_calibrate('DIR')}")
    return threshold


def similarity_signals(ranked: Ranked) -> Floats:
    """(B, C) found → (B, F) signals named by `SIMILARITY_SIGNALS`; -inf in the first if nothing was found."""
    scores = best_scores(np.where(ranked.images >= 0, ranked.scores, -np.inf))
    best, others = scores[:, 0], scores[:, 1:]
    there = np.isfinite(others)
    known = np.where(there, others, 0.0)  # a single image has no others to compare with
    mean = known.sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    return np.stack([best, best - known[:, 0], best - mean], axis=1)


def best_scores(scores: NDArray[Any]) -> Floats:
    """(B, C) → (B, LOOKED_AT) the highest, in order, -inf where there are fewer."""
    falling = -np.sort(-scores.astype(np.float64), axis=1)[:, :LOOKED_AT]
    return np.pad(falling, ((0, 0), (0, LOOKED_AT - falling.shape[1])), constant_values=-np.inf)
