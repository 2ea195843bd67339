"""What a retriever can tell of a search besides its answer.

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

from genret.search.ranking import Ints, Ranked

MISSED = int(np.iinfo(np.int64).max)
"""The rank of what was not found."""


@dataclass(frozen=True, kw_only=True)
class BeamTrace:
    """A beam search of every query, and where the identifiers of its right image stood. Ranks count from 1."""

    ranked: Ranked
    """(Q, C) catalog keys"""
    identifier_ranks: Ints
    """(Q,) of the right identifier among those found"""
    prefix_ranks: Ints
    """(Q, M) of the right prefix among those that survived its level; `MISSED` where it had gone"""
    beam_scores: NDArray[np.float32]
    """(Q, b) of the identifiers found, best first, -inf where there is none"""
    forced_scores: Callable[[], NDArray[np.float32]]
    """(Q,) what beams would score the right identifier, whether or not they reach it; -inf where it cannot be told"""


class Inspection(NamedTuple):
    """What identifiers say of N images; nothing, for retrievers without identifiers."""

    reconstruction: Tensor | None = None
    """(N, W) what is left of each image"""
    embed_queries: Callable[[Tensor], Tensor] | None = None
    """(Q, D) query vectors → (Q, W), compared with `reconstruction` by inner products; None: they stay as they are"""
    statistics: dict[str, Any] | None = None
    """`unique_rate`, `max_bucket`, `perplexity` by level"""
    content_based: bool = True
    """Whether an image's identifier follows from the image"""


@dataclass(frozen=True)
class Enlarged:
    """A first stage over made-up images besides a catalog's own."""

    num_images: int
    search: Callable[..., Any]
    """`search(queries, num_beams=None, k=10)`: from words to ranked images, all but looking up their names"""
    num_bytes: int
    """What is held of all images"""


def first_rank(found: Tensor, wanted: Tensor) -> Ints:
    """found (B, w) best first, wanted (B, A), -1 pads → (B,) the best place, from 1, of any wanted one; else MISSED."""
    match = ((found[:, :, None] == wanted[:, None, :]) & (wanted != -1)[:, None, :]).any(-1)
    place = match.float().argmax(1) + 1
    return torch.where(match.any(1), place, MISSED).cpu().numpy()
