"""The tokenizer network of paper 3.1: latent map, residual quantizer and decoder.

B images   D feature width   D_code latent width   M levels   K codes
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genret.components.quantize.rq import ResidualQuantizer


class Tokenized(NamedTuple):
    latent: Tensor
    """(B, D_code) z(v_i)"""
    codes: Tensor
    """(B, M)"""
    partial: Tensor
    """(B, M, D_code) ẑ^(d)"""
    reconstruction: Tensor
    """(B, D) v̂_i, unit rows"""
    codebook_loss: Tensor
    """Σ_d ‖sg(z) − ẑ^(d)‖², the codebook's part of Eqn. 4; 0 if codes are moving averages."""


class TokenizerNetwork(nn.Module):
    """Initialized as plain residual quantization: latent map and decoder are an isometry and its inverse.

    A randomly initialized decoder would have to learn the identity first.
    """

    def __init__(self, width: int, latent_width: int, hidden_width: int, quantizer: ResidualQuantizer):
        super().__init__()
        self.latent = nn.Linear(width, latent_width, bias=False)
        nn.init.eye_(self.latent.weight) if width == latent_width else nn.init.orthogonal_(self.latent.weight)
        self.quantizer = quantizer
        self.skip = nn.Linear(latent_width, width, bias=False)
        with torch.no_grad():
            self.skip.weight.copy_(self.latent.weight.T)
        last = nn.Linear(hidden_width, width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(nn.Linear(latent_width, hidden_width), nn.GELU(), last)

    def forward(self, features: Tensor) -> Tokenized:
        """(B, D) unit rows → the inputs of the losses (Eqns. 2–5)."""
        latent = self.latent(features)
        out = self.quantizer(latent)
        codebook_loss = latent.new_zeros(())
        if self.quantizer.learn == "gradient":
            codebook_loss = (latent.detach()[:, None] - out.partial).square().sum(-1).sum(-1).mean()
        return Tokenized(latent, out.codes, out.partial, self.decode_latent(out.quantized), codebook_loss)

    def decode_latent(self, quantized: Tensor) -> Tensor:
        """v̂ = MLP(ẑ) (Eqn. 3): (B, D_code) → (B, D) unit rows."""
        return F.normalize(self.skip(quantized) + self.mlp(quantized), dim=-1)

    def encode(self, features: Tensor, beam: int) -> Tensor:
        """(B, D) → codes (B, M)"""
        return self.quantizer.encode(self.latent(features), beam=beam)

    def decode(self, codes: Tensor) -> Tensor:
        """(B, M) → (B, D) unit rows"""
        return self.decode_latent(self.quantizer.decode(codes))
