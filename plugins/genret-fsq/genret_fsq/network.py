"""The network around FSQ: a linear map into the grid's space, one FSQ per level, a decoder.

B images   D feature width   M codes per image   d grid dimensions of a code   K grid points of a code
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ

GAUSSIAN_TO_EVEN = 0.8
"""tanh(0.8 z) is nearly even on (-1, 1) for a standard normal z: it approximates the normal distribution function."""


class Coded(NamedTuple):
    codes: Tensor
    """(B, M)"""
    bounded: Tensor
    """(B, M·d) positions on the grid before rounding"""
    quantized: Tensor
    """(B, M·d) grid points, with straight-through gradients"""
    reconstruction: Tensor
    """(B, D) unit rows"""


class FSQNetwork(nn.Module):
    """Finite scalar quantization (Mentzer et al., arXiv 2309.15505): every dimension is bounded and rounded.

    `init_pca` makes it usable without training: it rounds the normalized principal components, and the decoder is the
    least-squares inverse. Training continues from there.
    """

    def __init__(self, width: int, levels: tuple[int, ...], num_levels: int, hidden_width: int):
        super().__init__()
        self.num_levels, self.group = num_levels, len(levels)
        dims = num_levels * len(levels)
        self.latent = nn.Linear(width, dims)
        self.fsq = FSQ(list(levels))
        self.linear = nn.Linear(dims, width)
        last = nn.Linear(hidden_width, width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(nn.Linear(dims, hidden_width), nn.GELU(), last)
        sizes = torch.tensor(levels * num_levels, dtype=torch.float32)
        reach = (sizes - 1) * (1 + 1e-3) / 2
        offset = torch.where(sizes % 2 == 0, 0.5, 0.0)
        self.register_buffer("reach", reach, persistent=False)
        self.register_buffer("offset", offset, persistent=False)
        self.register_buffer("shift", (offset / reach).atanh(), persistent=False)
        self.register_buffer("steps", sizes // 2, persistent=False)
        self.register_buffer("grid", self.fsq.indices_to_codes(torch.arange(self.fsq.codebook_size)), persistent=False)

    reach: Tensor
    offset: Tensor
    shift: Tensor
    steps: Tensor
    grid: Tensor
    """(K, d) the grid points of the codes"""

    @torch.no_grad()
    def init_pca(self, rows: Tensor) -> None:
        """rows (n, D) → the map to principal components, the largest first, and the decoder back from their codes."""
        mean = rows.mean(0)
        values, vectors = torch.linalg.eigh((rows - mean).T.double() @ (rows - mean).double() / len(rows))
        count = self.latent.out_features
        values, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count]
        signs = vectors.gather(0, vectors.abs().argmax(0)[None]).sign()  # fixes the sign
        scaled = vectors * signs * (GAUSSIAN_TO_EVEN / values.clamp_min(1e-8 * float(values[0]) + 1e-12).sqrt())
        self.latent.weight.copy_(scaled.T)
        # bounded() shifts grids of even size by half a step; subtracting the shift centres the mean
        self.latent.bias.copy_(-(mean.double() @ scaled).float() - self.shift)
        points = self.quantize(self.latent(rows)).double()
        ones = torch.cat([points, torch.ones_like(points[:, :1])], 1)
        ridge = 1e-6 * len(rows) * torch.eye(ones.shape[1], dtype=ones.dtype, device=ones.device)
        back = torch.linalg.solve(ones.T @ ones + ridge, ones.T @ rows.double())
        self.linear.weight.copy_(back[:-1].T)
        self.linear.bias.copy_(back[-1])

    def forward(self, features: Tensor) -> Coded:
        """(B, D) → codes and the inputs of the losses."""
        z = self.latent(features)
        quantized = self.quantize(z)
        return Coded(self.nearest(z), self.bounded(z), quantized, self.decode_points(quantized))

    def quantize(self, z: Tensor) -> Tensor:
        """(B, M·d) → grid points (B, M·d), straight through."""
        points, _ = self.fsq(z.unflatten(1, (self.num_levels, self.group)))
        return points.flatten(1)

    @torch.no_grad()
    def nearest(self, z: Tensor) -> Tensor:
        """(B, M·d) → codes (B, M)"""
        _, codes = self.fsq(z.unflatten(1, (self.num_levels, self.group)))
        return codes.long()

    def bounded(self, z: Tensor) -> Tensor:
        """What FSQ rounds (its appendix A.1), in the grid's units: the nearest grid point is `quantize(z)`."""
        return ((z + self.shift).tanh() * self.reach - self.offset) / self.steps

    def squared_distances(self, bounded: Tensor) -> Tensor:
        """(B, M·d) → (B, M, K) squared distances to every grid point of each code."""
        own = bounded.unflatten(1, (self.num_levels, self.group))
        return (own[:, :, None] - self.grid).square().sum(-1)

    def points(self, codes: Tensor) -> Tensor:
        """(R, M) → (R, M·d)"""
        return self.grid[codes].flatten(1)

    def decode_points(self, points: Tensor) -> Tensor:
        """(R, M·d) → (R, D) unit rows"""
        return F.normalize(self.linear(points) + self.mlp(points), dim=-1)
