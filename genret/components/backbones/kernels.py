"""The matrix product of a linear layer, by the fastest library at hand."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_ONEDNN = (
    platform.machine().lower() in ("x86_64", "amd64")
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


def gelu_new(x: Tensor) -> Tensor:
    """As transformers writes it, not `F.gelu(x, approximate="tanh")`, which rounds otherwise."""
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


def _is_gelu_new(activation: Any) -> bool:
    """Ours or transformers'; the latter goes by its name, since importing the class takes seconds."""
    return activation is gelu_new or type(activation).__name__ == "NewGELUActivation"


def linear(x: Tensor, weight: Tensor, activation: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """x (..., I), weight (O, I) → (..., O), differentiable; then the activation.

    On a CPU torch leaves float32 to MKL, which takes about twice as long as oneDNN on AMD's processors. So oneDNN
    computes it, in float32 as well, where no gradient is needed; this is how `torch.compile` calls it. GELU's
    approximation by tanh is part of that call: transformers writes it as eight operations that each go through memory.
    """
    plain = x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu" and x.numel() > 0
    if _ONEDNN and plain and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu"):
        fused = _is_gelu_new(activation)
        after: tuple[str, list[float], str] = ("gelu", [], "tanh") if fused else ("none", [], "")
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, *after)
        return product if fused or activation is None else activation(product)
    product = F.linear(x, weight)
    return product if activation is None else activation(product)


def rows_of(weight: Tensor, rows: Tensor) -> Tensor:
    """weight (V, W), rows (C,) → (C, W): on a CPU, where the check costs nothing, consecutive rows are not copied."""
    if rows.device.type == "cpu" and len(rows) and bool((rows.diff() == 1).all()):
        return weight[int(rows[0]) : int(rows[-1]) + 1]
    return weight[rows]
