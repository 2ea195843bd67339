"""What identifiers still say of their images, in the metric by which a run searches: the quantization upper bound.

Without guidance a search knows an image by its reconstruction, compared by cosine. With guidance it adds
−γ/2 ‖z − ẑ‖² to each identifier, so images are compared by that distance: z · ẑ − ½ ‖ẑ‖² orders them alike. With
`search.length_weight` β, it is β/2 instead of ½.

    N images   M levels   Q queries   D_code width of the code vectors
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from genret.api import Identifier


class Ceiling(NamedTuple):
    images: Tensor
    """(N, W) what is left of each image"""
    queries: Callable[[Tensor], Tensor] | None
    """(Q, D) query vectors → (Q, W), to be compared with `images` by inner products; None: they stay as they are"""


def ceiling_of(
    identifier: Identifier, codes: Tensor, features: Tensor, guided: bool, length_weight: float
) -> Ceiling | None:
    """codes (N, M) and vectors (N, D) of the same images; None where the codes say nothing of an image."""
    sums = identifier.additive(features[:1]) if guided else None
    if sums is None:
        known = identifier.reconstruct(codes)
        return None if known is None else Ceiling(known, None)
    parts = [book.cpu()[codes[:, level]] for level, book in enumerate(sums.books)]
    points = torch.stack(parts).sum(0)  # (N, D_code)
    images = torch.cat([points, -0.5 * length_weight * points.square().sum(1, keepdim=True)], dim=1)

    def embed(queries: Tensor) -> Tensor:
        found = identifier.additive(queries)
        assert found is not None, "it was additive a moment ago"
        target = found.target.cpu()
        return torch.cat([target, target.new_ones(len(target), 1)], dim=1)

    return Ceiling(images, embed)
