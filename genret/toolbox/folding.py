"""Batch norms folded into the convolutions before them: the same function in inference, with half of the steps.

w * (conv(x) - mean) / sqrt(var + eps) + b is a convolution with other weights (Jacob et al. 2018, section 3.2).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genret.errors import GenretError

ALMOST_ONE = 0.9999
"""Least cosine of vectors before and after, in float32."""


def folded(module: nn.Module, example: Tensor, vector: Any, what: str) -> int:
    """Changes a module in evaluation mode → the number of batch norms that are gone.

    `vector`: runs the module on `example` (B, 3, S, S) → (B, D). Which norm follows which convolution is seen in one
    such run. Raises `GenretError` if there is nothing to fold, or if `what` then computes something else.
    """
    with torch.inference_mode():
        before = vector(example)
        pairs = _pairs(module, lambda: vector(example))
        if not pairs:
            raise GenretError(f"{what} has no batch norms to fold into convolutions; set fold to false")
        names = {part: name for name, part in module.named_modules()}
        for norm, convolution in pairs.items():
            with torch.inference_mode(False):
                fused = nn.utils.fuse_conv_bn_eval(convolution, norm)
            _replace(module, names[convolution], fused)
            _replace(module, names[norm], getattr(norm, "act", nn.Identity()))  # timm's norms activate, too
        after = vector(example)
    if float(nn.functional.cosine_similarity(before, after, dim=1).min()) < ALMOST_ONE:
        raise GenretError(f"{what} computes something else with its batch norms folded; set fold to false")
    return len(pairs)


def _pairs(module: nn.Module, run: Any) -> dict[nn.BatchNorm2d, nn.Conv2d]:
    """Each norm whose input is what one convolution has just given; both are called once."""
    given: list[tuple[Tensor, nn.Conv2d]] = []
    found: list[tuple[nn.BatchNorm2d, nn.Conv2d]] = []

    def remember(part: nn.Module, _: Any, output: Tensor) -> None:
        assert isinstance(part, nn.Conv2d)
        given.append((output, part))

    def look(part: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(part, nn.BatchNorm2d)
        found.extend((part, before) for output, before in given if output is inputs[0])

    hooks = [part.register_forward_hook(remember) for part in module.modules() if isinstance(part, nn.Conv2d)]
    hooks += [part.register_forward_pre_hook(look) for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    calls = [before for _, before in given]
    return {norm: before for norm, before in found if calls.count(before) == 1}


def _replace(module: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, part)
