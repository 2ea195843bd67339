"""Folding sees which norm follows which convolution; whatever else a network does with its output is noticed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from genret.errors import GenretError
from genret.toolbox.folding import folded


class Odd(nn.Module):
    """Named in another order than it runs; `also`: the convolution's own output is used besides."""

    def __init__(self, also: bool = False, twice: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.last = nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3)
        self.first = nn.Conv2d(3, 4, 3, bias=False)
        self._also, self._twice = also, twice
        for values in (self.norm.weight.data, self.norm.bias.data, self.norm.running_mean):
            assert values is not None
            nn.init.normal_(values, mean=2)

    def forward(self, pixels: Tensor) -> Tensor:
        seen = self.first(pixels)
        hidden = self.norm(seen).relu() + (seen if self._also else 0)
        return self.last(hidden).mean((2, 3)) + (self.first(pixels).mean() if self._twice else 0)


def test_by_what_runs_not_by_names() -> None:
    module, pixels = Odd().eval(), torch.rand(3, 3, 9, 9)
    before = module(pixels)
    assert folded(module, pixels, module, "it") == 1
    assert isinstance(module.norm, nn.Identity) and module.first.bias is not None
    torch.testing.assert_close(module(pixels), before)


def test_a_convolution_whose_output_is_used_besides_is_noticed() -> None:
    module = Odd(also=True).eval()
    with pytest.raises(GenretError, match="it computes something else"):
        folded(module, torch.rand(3, 3, 9, 9), module, "it")


def test_a_convolution_that_runs_twice_is_left_alone() -> None:
    module = Odd(twice=True).eval()
    with pytest.raises(GenretError, match="it has no batch norms to fold"):
        folded(module, torch.rand(3, 3, 9, 9), module, "it")
