"""The matrix product of a linear layer, by the fastest library at hand."""

from __future__ import annotations

import platform

import torch
import torch.nn.functional as F
from torch import Tensor

_ONEDNN = (
    platform.machine().lower() in ("x86_64", "amd64")
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., I), weight (O, I) → (..., O), differentiable.

    On a CPU torch leaves float32 to MKL, which takes about twice as long as oneDNN on AMD's processors. So oneDNN
    computes it, in float32 as well, where no gradient is needed; this is how `torch.compile` calls it.
    """
    plain = x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu" and x.numel() > 0
    if _ONEDNN and plain and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu"):
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
        return product
    return F.linear(x, weight)


def rows_of(weight: Tensor, rows: Tensor) -> Tensor:
    """weight (V, W), rows (C,) → (C, W): on a CPU, where the check costs nothing, consecutive rows are not copied."""
    if rows.device.type == "cpu" and len(rows) and bool((rows.diff() == 1).all()):
        return weight[int(rows[0]) : int(rows[-1]) + 1]
    return weight[rows]
