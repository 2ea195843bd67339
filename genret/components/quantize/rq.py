"""Residual quantization: a vector as a sum of M code vectors, each the nearest to the residual of the previous ones.

    r_1 = z,   code_m = argmin_k ‖r_m − e_k‖,   r_{m+1} = r_m − e_{code_m},   ẑ^(d) = Σ_{m ≤ d} e_{code_m}

(Li et al., arXiv 2407.17274, Eqns. 1–2; Lee et al., arXiv 2203.01941.)

    B vectors   D width   M levels   K codes per level   S symbols: K if the levels share a codebook, else M·K
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from genret.components.quantize.kmeans import BLOCK, cluster_sums, distances, kmeans, nearest

POOLED_POINTS = 1 << 20
"""Maximum number of residuals, over all levels, to initialize a shared codebook."""


class RQOutput(NamedTuple):
    codes: Tensor
    """(B, M) int64"""
    quantized: Tensor
    """(B, D) ẑ^(M); straight-through gradient to z"""
    partial: Tensor
    """(B, M, D) the partial sums ẑ^(1) .. ẑ^(M); their gradient goes to the codebooks with `learn="gradient"`"""


class ResidualQuantizer(nn.Module):
    """`learn="ema"`: codes are moving averages of the residuals assigned to them (van den Oord et al., arXiv
    1711.00937, appendix A.1), over roughly the last `1 / (1 - ema_decay)` batches. `learn="gradient"`: codes are
    parameters, trained by the caller's loss on `partial`.

    A code that is used less than `dead_code_threshold` times as often as the average is dead and is replaced by a
    residual of the current batch (0: never). `shared`: one codebook for all levels.
    """

    codebooks: Tensor
    """(1 or M, K, D)"""
    cluster_size: Tensor
    """(1 or M, K) moving average of each code's use, 1 being the mean over codes"""
    cluster_sum: Tensor
    """(1 or M, K, D) sums of the residuals assigned to each code, in the same units; unused with `learn="gradient"`"""
    initted: Tensor
    """() bool, whether `init_kmeans` has run"""

    def __init__(
        self,
        dim: int,
        num_levels: int,
        codebook_size: int,
        shared: bool = False,
        learn: Literal["ema", "gradient"] = "ema",
        ema_decay: float = 0.99,
        dead_code_threshold: float = 0.05,
    ):
        super().__init__()
        self.dim, self.num_levels, self.codebook_size = dim, num_levels, codebook_size
        self.shared, self.learn = shared, learn
        self.ema_decay, self.dead_code_threshold = ema_decay, dead_code_threshold
        books = torch.randn(1 if shared else num_levels, codebook_size, dim) * dim**-0.5
        if learn == "gradient":
            self.codebooks = nn.Parameter(books)
        else:
            self.register_buffer("codebooks", books)
        self.register_buffer("cluster_size", torch.ones(books.shape[:2]))
        self.register_buffer("cluster_sum", books.clone() if learn == "ema" else torch.empty(0))
        self.register_buffer("initted", torch.tensor(False))

    def book(self, level: int) -> Tensor:
        """(K, D) the codebook of `level`."""
        return self.codebooks[0 if self.shared else level]

    def code_vectors(self) -> Tensor:
        """(S, D) the vector of every code, level by level."""
        return self.codebooks.detach().flatten(0, 1).clone()

    # -------------------------------------------------------------------------------------------------------- training
    def forward(self, z: Tensor) -> RQOutput:
        """z (B, D). In training mode, then updates moving averages and dead codes, after all levels have run."""
        z = z.float()
        codes = self.encode(z)
        partial = self.vectors(codes).cumsum(1)
        quantized = z + (partial[:, -1] - z).detach()
        if self.training:
            residuals = torch.cat([z[:, None], z[:, None] - partial[:, :-1]], 1).detach()
            self.update(residuals, codes)
        return RQOutput(codes, quantized, partial)

    @torch.no_grad()
    def update(self, residuals: Tensor, codes: Tensor) -> None:
        """residuals (B, M, D), each level's input; codes (B, M), its choice."""
        if not len(codes):
            return
        # One level at a time, or all at once for a shared codebook, which changes only after the last level.
        given = residuals.flatten(0, 1)[:, None] if self.shared else residuals
        chosen = codes.flatten()[:, None] if self.shared else codes
        for book in range(len(self.codebooks)):
            points = given[:, book]
            count, total = cluster_sums(points, chosen[:, book], self.codebook_size)
            scale = self.codebook_size / len(points)
            self.cluster_size[book].lerp_(count * scale, 1 - self.ema_decay)
            if self.learn == "ema":
                self.cluster_sum[book].lerp_(total * scale, 1 - self.ema_decay)
                size = self.cluster_size[book][:, None]
                # The quotient stays exact while an unused code's count decays, down to the smallest float.
                mean = self.cluster_sum[book] / size.clamp_min(1e-30)
                self.codebooks[book] = torch.where(size > 1e-30, mean, self.codebooks[book])
            if self.dead_code_threshold > 0:
                self.revive(book, points)

    def revive(self, book: int, points: Tensor) -> None:
        """Moves dead codes to different points (n, D) of the batch and gives them average usage.

        Samples from torch's global CPU generator in every step, so that restoring its state repeats the sample.
        """
        drawn = points[torch.randperm(len(points)).to(points.device)]
        dead = self.cluster_size[book] < self.dead_code_threshold
        turn = dead.cumsum(0) - 1
        dead &= turn < len(drawn)
        fresh = drawn[turn.clamp(0, len(drawn) - 1)]
        self.codebooks.data[book] = torch.where(dead[:, None], fresh, self.codebooks.data[book])
        self.cluster_size[book] = self.cluster_size[book].masked_fill(dead, 1.0)
        if self.learn == "ema":
            self.cluster_sum[book] = torch.where(dead[:, None], fresh, self.cluster_sum[book])

    @torch.no_grad()
    def init_kmeans(self, x: Tensor, iters: int, generator: torch.Generator) -> None:
        """x (N, D): residual k-means, each level on the residuals of the previous ones.

        A shared codebook is fitted on the residuals of all levels: first on x, then adding one level at a time,
        computed with the current codebook. (Fitted on x alone, it would have no small vectors for later levels.)
        """
        x = x.float()
        if self.shared:
            most = max(1, POOLED_POINTS // self.num_levels)
            if len(x) > most:
                x = x[torch.randperm(len(x), generator=generator, device=generator.device)[:most].to(x.device)]
            pool = x
            for level in range(self.num_levels):
                self.codebooks.data[0] = kmeans(pool, self.codebook_size, iters, generator)
                if level + 1 < self.num_levels:
                    pool = self.residuals(x, level + 2).flatten(0, 1)
            pool = self.residuals(x, self.num_levels).flatten(0, 1)
            self.start_averages(0, pool)
        else:
            residual = x
            for level in range(self.num_levels):
                self.codebooks.data[level] = kmeans(residual, self.codebook_size, iters, generator)
                self.start_averages(level, residual)
                residual = residual - self.book(level)[nearest(residual, self.book(level))]
        self.initted.fill_(True)

    def residuals(self, x: Tensor, levels: int) -> Tensor:
        """x (N, D) → (N, levels, D), the input of each of the first `levels` levels."""
        given = [x]
        for level in range(levels - 1):
            given.append(given[-1] - self.book(level)[nearest(given[-1], self.book(level))])
        return torch.stack(given, 1)

    def start_averages(self, book: int, points: Tensor) -> None:
        count, _ = cluster_sums(points, nearest(points, self.codebooks[book]), self.codebook_size)
        self.cluster_size[book] = count * (self.codebook_size / len(points))
        if self.learn == "ema":
            self.cluster_sum[book] = self.codebooks[book] * self.cluster_size[book][:, None]

    # --------------------------------------------------------------------------------------------------------- coding
    @torch.no_grad()
    def encode(self, z: Tensor, beam: int = 1) -> Tensor:
        """z (B, D) → codes (B, M), ties go to the first code.

        `beam` > 1 keeps the nearest partial sums of each vector and is never worse than greedy (1).
        """
        z = z.float()
        residual, codes = z, []
        for level in range(self.num_levels):
            codes.append(nearest(residual, self.book(level)))
            residual = residual - self.book(level)[codes[-1]]
        greedy = torch.stack(codes, 1)
        if beam == 1 or not len(z):
            return greedy
        rows = max(1, BLOCK // (beam * max(self.codebook_size, self.dim)))
        wide = torch.cat([self._beam(part, beam)[:, 0] for part in torch.split(z, rows)])
        # Beam search can miss the greedy result if it drops its prefix, so both are compared.
        error, error_wide = ((z - self.decode(c)).square().sum(1) for c in (greedy, wide))
        return torch.where((error_wide < error)[:, None], wide, greedy)

    @torch.no_grad()
    def candidates(self, z: Tensor, count: int) -> Tensor:
        """z (B, D) → (B, w, M) distinct encodings of each vector, nearest first, by a beam search of width `count`.

        w is `count`, or K^M if that is less; then the order is exact.
        """
        rows = max(1, BLOCK // (count * max(self.codebook_size, self.dim)))
        return torch.cat([self._beam(part, count) for part in torch.split(z.float(), rows)])

    def _beam(self, z: Tensor, beam: int) -> Tensor:
        """z (B, D) → (B, w, M), the `beam` best encodings of a beam search over the levels."""
        residual = z[:, None]  # (B, w, D)
        codes = torch.empty(len(z), 1, 0, dtype=torch.int64, device=z.device)
        for level in range(self.num_levels):
            book = self.book(level)
            error = residual.square().sum(-1, keepdim=True) + distances(residual, book)  # (B, w, K)
            error = error.clamp_min(0).flatten(1)
            # Non-negative floats sort like their bits; the index in the low bits breaks ties.
            order = (error.view(torch.int32).long() << 32) | torch.arange(error.shape[1], device=z.device)
            kept = order.topk(min(beam, error.shape[1]), largest=False, sorted=True).indices
            parent, code = kept // self.codebook_size, kept % self.codebook_size
            row = torch.arange(len(z), device=z.device)[:, None]
            codes = torch.cat([codes[row, parent], code[..., None]], -1)
            residual = residual[row, parent] - book[code]
        return codes

    def assignments(self, z: Tensor, partial: Tensor) -> list[Tensor]:
        """z (B, D), partial (B, M, D) → M tensors (B, K), −‖r_m − e_k‖² from each level's input to each code."""
        given = torch.cat([z[:, None], z[:, None] - partial[:, :-1]], 1)
        return [
            -given[:, level].square().sum(1, keepdim=True) - distances(given[:, level], self.book(level))
            for level in range(self.num_levels)
        ]

    def vectors(self, codes: Tensor) -> Tensor:
        """codes (B, M) → (B, M, D), the chosen code vectors."""
        return torch.stack([self.book(level)[codes[:, level]] for level in range(self.num_levels)], 1)

    def decode(self, codes: Tensor) -> Tensor:
        """codes (B, M) → ẑ (B, D)."""
        return self.vectors(codes).cumsum(1)[:, -1]
