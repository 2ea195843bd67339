"""What makes pictures of the same thing alike, learnt from pairs of them: linear discriminant analysis (Fisher; 1936).

N images, D width of their vectors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WIDTH = 512
RIDGE = 0.03
"""Share of the mean variance within classes that is added to every direction's."""
NEAREST = 10
CROWDING = 0.25
"""Weight of how crowded it is around an image; 0 compares as if none were a neighbour of everything."""
BLOCK = 1024


def likeness(features: Tensor, classes: Tensor) -> Tensor:
    """(N, D) centred vectors, (N,) ids → (D, K) the map after which images of a class are alike and classes differ.

    Scales directions by what varies within classes, then keeps the directions in which classes vary most. With no two
    images of a class nothing is learnt, and K is 0.
    """
    ids, members, counts = classes.unique(return_inverse=True, return_counts=True)
    means = features.new_zeros(len(ids), features.shape[1]).index_add_(0, members, features) / counts[:, None]
    within = features - means[members]
    if not (counts > 1).any():
        return features.new_zeros(features.shape[1], 0)
    variances, directions = torch.linalg.eigh(within.T @ within / len(within))
    scaled = directions / (variances.clamp_min(0) + RIDGE * variances.mean()).sqrt()
    between = means @ scaled
    return scaled @ main_directions(between, WIDTH)


def main_directions(rows: Tensor, width: int) -> Tensor:
    """(N, D) → (D, at most `width`) orthonormal columns: the space in which the rows, as they are, lose least."""
    return torch.linalg.eigh(rows.T @ rows).eigenvectors[:, -width:]


def crowding(keys: Tensor) -> Tensor:
    """(N, K) unit rows → (N,) the mean similarity of each to its nearest others.

    In many dimensions some points are near to everything (hubs); what they are near to says little. Subtracting their
    own crowding is the correction of cross-domain similarity local scaling (CSLS, arXiv 1710.04087).
    """
    count = min(NEAREST, len(keys) - 1)
    if count < 1:
        return keys.new_zeros(len(keys))
    found = []
    for start in range(0, len(keys), BLOCK):
        near = keys[start : start + BLOCK] @ keys.T
        near[torch.arange(len(near)), torch.arange(start, start + len(near))] = -torch.inf
        found.append(near.topk(count, dim=1).values.mean(1))
    return torch.cat(found)


def joined(one: Tensor, other: Tensor) -> Tensor:
    """(N, A) and (N, B) → (N, A + B) unit rows, in which both halves count alike; `other` may be empty."""
    return F.normalize(torch.cat([F.normalize(one, dim=-1), F.normalize(other, dim=-1)], 1), dim=-1)
