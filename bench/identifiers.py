"""Catalogs of identifiers without images: distinct sequences of M codes out of K, unsorted.

`uniform`: all sequences are equally likely, as in published measurements of constrained decoding; the trie is bushy at
the top and its nodes have few children below. `skewed`: some codes are frequent and others rare, as for images, so that
a few nodes have very many children.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

CODEBOOK_SIZE = 1024
NUM_LEVELS = 4
Distribution = Literal["uniform", "skewed"]


def identifiers(count: int, distribution: Distribution = "uniform", seed: int = 0) -> Tensor:
    """(count, NUM_LEVELS) int32 codes below CODEBOOK_SIZE, no two rows alike."""
    random = np.random.default_rng(seed)
    keys = np.zeros(0, dtype=np.int64)
    while len(keys) < count:
        drawn = _draw(random, count - len(keys) + count // 8 + 16, distribution)
        keys = np.concatenate([keys, drawn])
        keys.sort()
        keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
    random.shuffle(keys)  # also chooses which surplus rows are dropped
    keys = keys[:count]
    codes = np.empty((count, NUM_LEVELS), dtype=np.int32)
    for level in range(NUM_LEVELS):
        codes[:, level] = keys >> (10 * (NUM_LEVELS - 1 - level)) & (CODEBOOK_SIZE - 1)
    return torch.from_numpy(codes)


def _draw(random: np.random.Generator, count: int, distribution: Distribution) -> np.ndarray:
    """(count,) sequences as numbers, the first code highest; there may be duplicates."""
    if distribution == "uniform":
        return random.integers(CODEBOOK_SIZE**NUM_LEVELS, size=count, dtype=np.int64)
    weights = 1 / np.arange(1, CODEBOOK_SIZE + 1) ** 0.7
    keys = np.zeros(count, dtype=np.int64)
    for _ in range(NUM_LEVELS):
        keys = keys << 10 | random.choice(CODEBOOK_SIZE, size=count, p=weights / weights.sum())
    return keys


def tokens_of(codes: Tensor, level_tokens: list[Tensor]) -> Tensor:
    """Converts codes to a model's tokens in place, to save memory for a hundred million rows."""
    for level, tokens in enumerate(level_tokens):
        assert bool((tokens.diff() == 1).all()), "a level's tokens follow each other"
        codes[:, level] += int(tokens[0])
    return codes
