"""How sure a search is that the catalog holds what was asked: a calibrated probability from the first stage's scores.

Platt's method (1999), logistic regression, over a few numbers that tell a sure search from a search that clutches at
straws. It knows scores alone, neither queries nor images; `evaluate/confidence.py` fits it on the development split.

    B queries   C images found   F numbers that tell
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genret.errors import GenretError, UsageError, one_line
from genret.search.ranking import Ranked

Floats = NDArray[np.float64]
Kind = Literal["generative", "two-tower"]

FILE = "confidence.json"
FORMAT = 1
LOOKED_AT = 10
"""Identifiers, or images of a dense search, that are looked at: the numbers then hardly depend on the beams."""
SIGNALS: dict[Kind, tuple[str, ...]] = {
    "generative": ("best", "mass", "margin", "entropy"),
    "two-tower": ("best", "margin", "lead"),
}
"""generative, of the best identifiers' log-probabilities s_1 ≥ s_2 ≥ …: s_1; log Σ exp s_i; s_1 − s_2; the entropy, in
nats, of exp s_i / Σ exp s_j. two-tower, of the best cosines c_1 ≥ c_2 ≥ …: c_1; c_1 − c_2; c_1 − mean(c_2, …)."""
WIDEST_MARGIN = 20.0
"""Log-probability that the best identifier is ahead of none."""
FARTHEST = 4.0
"""Signals farther from their mean, in standard deviations, count as this far: nothing is known of what lies there."""


class Confidence(NamedTuple):
    """p(something of the kind is there | signals) = σ(bias + Σ weight · (signal − mean) / scale), for even odds."""

    kind: Kind
    mean: list[float]
    """(F,)"""
    scale: list[float]
    """(F,)"""
    weights: list[float]
    """(F,)"""
    bias: float
    fitted: dict[str, Any]
    """On what, and how well it did there"""

    def of_signals(self, signals: Floats) -> Floats:
        """(B, F) → (B,) probabilities; 0 where nothing was found."""
        there = np.isfinite(signals.min(axis=1, keepdims=True))  # (B, 1)
        known = np.where(there, signals, 0.0)
        distance = np.clip((known - self.mean) / self.scale, -FARTHEST, FARTHEST)
        odds = distance @ np.array(self.weights) + self.bias
        return np.where(there[:, 0], 1.0 / (1.0 + np.exp(-odds)), 0.0)

    def of(self, ranked: Ranked) -> Floats:
        """What a first stage found (B, C) → (B,) probabilities."""
        return self.of_signals(signals(ranked, self.kind))

    def as_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "signals": list(SIGNALS[self.kind])} | self._asdict()


def read_confidence(run: Path) -> Confidence | None:
    """What calibration left in the run; None if it has not been there."""
    path = run / FILE
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        made = Confidence(**{field: found[field] for field in Confidence._fields})
        fits = found["format"] == FORMAT and tuple(found["signals"]) == SIGNALS[made.kind]
        np.array([made.mean, made.scale, made.weights], dtype=np.float64).reshape(3, len(SIGNALS[made.kind]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GenretError(f"{path} is damaged ({one_line(error, 80)}); {how_to_calibrate(run)}") from None
    if not fits:
        raise GenretError(f"{path} was written by another version of genret; {how_to_calibrate(run)}")
    return made


def how_to_calibrate(run: Path | str) -> str:
    return f"make it with: genret evaluate --calibrate --run {run}"


def checked_threshold(threshold: float | None, confidence: Confidence | None) -> float | None:
    """`UsageError` for a threshold that means nothing, or one that nothing can be held against."""
    if threshold is None:
        return None
    if not 0 <= threshold <= 1:
        raise UsageError(f"min_confidence is a probability from 0 to 1, not {threshold}")
    if confidence is None:
        raise UsageError(f"this run's searches have no calibrated confidence; {how_to_calibrate('DIR')}")
    return threshold


def signals(ranked: Ranked, kind: Kind) -> Floats:
    """(B, C) found → (B, F), what `SIGNALS` names; -inf in the first where nothing was found."""
    if kind == "two-tower":
        return _of_cosines(_first(np.where(ranked.images >= 0, ranked.scores, -np.inf)))
    return _of_log_probs(_first(_one_of_each_leaf(ranked)))


def _of_log_probs(scores: Floats) -> Floats:
    best = scores[:, 0]
    odds = np.exp(scores - np.where(np.isfinite(best), best, 0.0)[:, None])  # of each against the best
    total = np.maximum(odds.sum(axis=1), 1e-300)
    share = odds / total[:, None]
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1)
    margin = np.minimum(-np.log(np.maximum(odds[:, 1], 1e-300)), WIDEST_MARGIN)
    return np.stack([best, best + np.log(total), margin, entropy], axis=1)


def _of_cosines(scores: Floats) -> Floats:
    best, others = scores[:, 0], scores[:, 1:]
    there = np.isfinite(others)
    known = np.where(there, others, 0.0)  # an image alone is compared with none that is like the query
    mean = known.sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    return np.stack([best, best - known[:, 0], best - mean], axis=1)


def _one_of_each_leaf(ranked: Ranked) -> Floats:
    """(B, C) the score of each identifier once, -inf elsewhere: images of one identifier are one piece of evidence."""
    leaves = np.where(ranked.images >= 0, ranked.leaves, -1)
    order = np.argsort(leaves, axis=1, kind="stable")
    sorted_leaves = np.take_along_axis(leaves, order, axis=1)
    new = np.ones(leaves.shape, dtype=bool)
    new[:, 1:] = sorted_leaves[:, 1:] != sorted_leaves[:, :-1]
    first = np.zeros(leaves.shape, dtype=bool)
    np.put_along_axis(first, order, new, axis=1)
    return np.where(first & (leaves >= 0), ranked.scores, -np.inf)


def _first(scores: NDArray[Any]) -> Floats:
    """(B, C) → (B, LOOKED_AT) the highest, in order, -inf where there are fewer."""
    falling = -np.sort(-scores.astype(np.float64), axis=1)[:, :LOOKED_AT]
    return np.pad(falling, ((0, 0), (0, LOOKED_AT - falling.shape[1])), constant_values=-np.inf)
