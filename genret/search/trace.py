"""Details of a search beyond its results, for evaluation.

Q queries   N images   M levels   b beams   D width
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genret.kit.arrays import Ints
from genret.search.ranking import Ranked

MISSED = int(np.iinfo(np.int64).max)
"""The rank of an item that was not found."""


@dataclass(frozen=True, kw_only=True)
class BeamTrace:
    """A beam search of every query, and the ranks of its positive's identifiers. Ranks start at 1."""

    ranked: Ranked
    """(Q, C) catalog keys"""
    identifier_ranks: Ints
    """(Q,) of the positive identifier among those found"""
    prefix_ranks: Ints
    """(Q, M) of the positive prefix among the survivors of its level; `MISSED` if it was pruned"""
    beam_scores: NDArray[np.float32]
    """(Q, b) of the identifiers found, best first, -inf for none"""
    forced_scores: Callable[[], NDArray[np.float32]]
    """(Q,) score of the positive identifier, reached by beams or not; -inf if unknown"""


class Inspection(NamedTuple):
    """The vectors and statistics of N images' identifiers; empty for retrievers without identifiers."""

    reconstruction: Tensor | None = None
    """(N, W) what is left of each image"""
    embed_queries: Callable[[Tensor], Tensor] | None = None
    """(Q, D) query vectors → (Q, W), compared with `reconstruction` by inner products; None: they stay as they are"""
    statistics: dict[str, Any] | None = None
    """`unique_rate`, `max_bucket`, `perplexity` by level"""
    content_based: bool = True
    """Whether an image's identifier depends on its content"""


@dataclass(frozen=True)
class Enlarged:
    """A first stage over synthetic images besides those of a catalog."""

    num_images: int
    search: Callable[..., Any]
    """`search(queries, num_beams=None, k=10)`: from queries to ranked images, without looking up their names"""
    num_bytes: int
    """Memory used for all images"""


def first_rank(found: Tensor, wanted: Tensor) -> Ints:
    """found (B, w) best first, positives (B, A), -1 pads → (B,) the best rank, from 1, of any of these; else MISSED."""
    match = ((found[:, :, None] == wanted[:, None, :]) & (wanted != -1)[:, None, :]).any(-1)
    place = match.float().argmax(1) + 1
    return torch.where(match.any(1), place, MISSED).cpu().numpy()
