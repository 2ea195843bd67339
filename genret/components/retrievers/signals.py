"""Confidence signals of a beam search, from the log-probabilities of the identifiers found.

B queries   C images found
"""

from __future__ import annotations

import numpy as np

from genret.search.confidence import Floats, best_scores
from genret.search.ranking import Ranked

NAMES = ("best", "mass", "margin", "entropy")
"""From the log-probabilities s_1 ≥ s_2 ≥ … of the identifiers found: s_1; log Σ exp s_i; s_1 − s_2; the entropy, in
nats, of exp s_i / Σ exp s_j."""
WIDEST_MARGIN = 20.0
"""Upper bound of the margin s_1 − s_2, also used if only one identifier was found."""


def beam_signals(ranked: Ranked) -> Floats:
    """(B, C) found → (B, 4), the signals `NAMES`; the first is -inf if nothing was found."""
    scores = best_scores(_one_of_each_leaf(ranked))
    best = scores[:, 0]
    odds = np.exp(scores - np.where(np.isfinite(best), best, 0.0)[:, None])  # relative to the best
    total = np.maximum(odds.sum(axis=1), 1e-300)
    share = odds / total[:, None]
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1)
    margin = np.minimum(-np.log(np.maximum(odds[:, 1], 1e-300)), WIDEST_MARGIN)
    return np.stack([best, best + np.log(total), margin, entropy], axis=1)


def _one_of_each_leaf(ranked: Ranked) -> Floats:
    """(B, C) each identifier's score once, -inf elsewhere: images that share an identifier count once."""
    leaves = np.where(ranked.images >= 0, ranked.leaves, -1)
    order = np.argsort(leaves, axis=1, kind="stable")
    sorted_leaves = np.take_along_axis(leaves, order, axis=1)
    new = np.ones(leaves.shape, dtype=bool)
    new[:, 1:] = sorted_leaves[:, 1:] != sorted_leaves[:, :-1]
    first = np.zeros(leaves.shape, dtype=bool)
    np.put_along_axis(first, order, new, axis=1)
    return np.where(first & (leaves >= 0), ranked.scores, -np.inf)
