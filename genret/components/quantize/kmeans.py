"""k-means in plain torch, for codebooks: bounded memory, no empty clusters, reproducible from a generator.

N points   k clusters   D width
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 1 << 22
"""Maximum number of distances in memory."""
POINTS_PER_SEED = 16
"""k-means++ uses at most this many points per cluster."""


@torch.no_grad()
def kmeans(x: Tensor, k: int, iters: int, generator: torch.Generator, weights: Tensor | None = None) -> Tensor:
    """Lloyd's algorithm after k-means++ (Arthur and Vassilvitskii 2007). x (N, D) → centroids (k, D).

    Starts from the seeds, or from midpoints between the seeds and the overall mean, whichever has the lower error after
    one step. In residuals, which have many dimensions and no clusters, most points are closer to the mean than to any
    other point: clusters would keep only their seed, and many codes would hardly be used.

    `weights` (N,): weights of the points. A cluster that loses all its points moves to the point farthest from its
    centroid. If there are fewer distinct points than clusters, the rest are slightly perturbed copies.
    """
    assert x.ndim == 2 and len(x) > 0 and k >= 1
    x = x.float()
    weights = torch.ones(len(x), device=x.device) if weights is None else weights.float()
    seeds = seed(x, k, generator, weights)
    if iters == 0:
        return seeds
    mean = (weights @ x) / weights.sum().clamp_min(1e-12)
    starts = [lloyd_step(x, start, weights) for start in (seeds, torch.lerp(mean, seeds, 0.5))]
    errors = torch.stack([(squared_error(x, c, nearest(x, c)) * weights).sum() for c in starts])
    centroids = torch.stack(starts)[errors.argmin()]
    for _ in range(iters - 1):
        centroids = lloyd_step(x, centroids, weights)
    return centroids


def lloyd_step(x: Tensor, centroids: Tensor, weights: Tensor) -> Tensor:
    """x (N, D), weights (N,), centroids (k, D) → the means (k, D) of the points nearest to each."""
    k = len(centroids)
    negligible = 1e-8 * (x - x.mean(0)).square().sum(1).mean()
    codes = nearest(x, centroids)
    counts, sums = cluster_sums(x, codes, k, weights)
    # An empty cluster keeps its centroid, unless some point is far from its own.
    means = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1e-12)[:, None], centroids)
    error = squared_error(x, centroids, codes) * (weights > 0)
    far, order = error.topk(min(k, len(x)))
    turn = (counts == 0).cumsum(0) - 1  # the n-th empty cluster takes the n-th farthest point
    reach = turn.clamp(0, len(far) - 1)
    moved = (counts == 0) & (turn < len(far)) & (far[reach] > negligible)
    return torch.where(moved[:, None], x[order[reach]], means)


def seed(x: Tensor, k: int, generator: torch.Generator, weights: Tensor) -> Tensor:
    """k-means++: each seed is sampled with probability proportional to its squared distance from the seeds so far."""
    if len(x) > POINTS_PER_SEED * k:
        some = torch.randperm(len(x), generator=generator, device=generator.device)[: POINTS_PER_SEED * k]
        x, weights = x[some.to(x.device)], weights[some.to(x.device)]
    draws = torch.rand(k, generator=generator, device=generator.device, dtype=torch.float64).to(x.device)
    mass = weights.double()
    distance = torch.full_like(mass, torch.inf)
    chosen, repeated = [], []
    for draw in draws:
        total = mass.cumsum(0)
        repeated.append(total[-1] <= 0)  # every point is a seed already
        weights_left = torch.where(repeated[-1], weights.double().cumsum(0), total)
        point = torch.searchsorted(weights_left, draw * weights_left[-1], right=True).clamp_max(len(x) - 1)
        chosen.append(point)
        distance = torch.minimum(distance, (x - x.index_select(0, point[None])).square().sum(1).double())
        mass = weights * distance
    seeds = x[torch.stack(chosen)]
    spread = (x - x.mean(0)).square().mean().sqrt() + 1e-3 * x.square().mean().sqrt()
    noise = torch.randn(seeds.shape, generator=generator, device=generator.device).to(x.device)
    return seeds + 1e-3 * spread * noise * torch.stack(repeated)[:, None]


def nearest(x: Tensor, centroids: Tensor) -> Tensor:
    """x (..., D), centroids (k, D) → (...) int64, the nearest centroid of each point; ties go to the first."""
    flat = x.reshape(-1, x.shape[-1])
    rows = max(1, BLOCK // len(centroids))
    codes = [distances(part, centroids).argmin(1) for part in torch.split(flat, rows)]
    return torch.cat(codes).view(x.shape[:-1]) if codes else flat.new_zeros(x.shape[:-1], dtype=torch.int64)


def distances(x: Tensor, centroids: Tensor) -> Tensor:
    """x (..., D), centroids (k, D) → (..., k) squared distances without ‖x‖², which does not affect comparisons."""
    with torch.autocast(x.device.type, enabled=False):
        return centroids.float().square().sum(1) - 2 * (x.float() @ centroids.float().T)


def squared_error(x: Tensor, centroids: Tensor, codes: Tensor) -> Tensor:
    """(N,) squared distance of each point from its centroid, exactly 0 where they are equal."""
    return torch.cat(
        [
            (p - centroids[c]).square().sum(1)
            for p, c in zip(torch.split(x, 8192), torch.split(codes, 8192), strict=True)
        ]
    )


def cluster_sums(x: Tensor, codes: Tensor, k: int, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """x (N, D), codes (N,) → how many points each cluster has (k,), and their sums (k, D).

    The order of additions is fixed, so that a repeated run gives the same bits: on a GPU `index_add_` is not
    deterministic, and a product with one-hot rows is.
    """
    weights = torch.ones(len(x), device=x.device) if weights is None else weights
    counts, sums = x.new_zeros(k), x.new_zeros(k, x.shape[1])
    if x.device.type == "cpu":
        counts.index_add_(0, codes, weights)
        sums.index_add_(0, codes, x * weights[:, None])
        return counts, sums
    rows = max(1, BLOCK // k)
    with torch.autocast(x.device.type, enabled=False):
        for point, code, weight in zip(*(torch.split(t, rows) for t in (x, codes, weights)), strict=True):
            members = torch.nn.functional.one_hot(code, k).to(x.dtype) * weight[:, None]
            counts += members.sum(0)
            sums += members.T @ point
    return counts, sums
