"""How evenly the codes of each level are used: low values reveal a collapsed codebook."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class LevelUsage(NamedTuple):
    usage: float
    """Share of the level's codes that occur"""
    entropy: float
    """Entropy of the code frequencies, in bits"""
    perplexity: float
    """2 ** entropy: the number of equally frequent codes with the same entropy"""


def usage_statistics(codes: Tensor, sizes: tuple[int, ...]) -> list[LevelUsage]:
    """codes (R, M), -1 after the end of a shorter identifier, with `sizes[m]` codes at level m."""
    levels = []
    for level, size in enumerate(sizes):
        used = codes[:, level]
        counts = torch.bincount(used[used >= 0], minlength=size).double()
        share = counts / counts.sum().clamp_min(1)
        entropy = float(-torch.special.xlogy(share, share).sum()) / math.log(2)
        levels.append(LevelUsage(float((counts > 0).double().mean()), entropy, 2**entropy))
    return levels
