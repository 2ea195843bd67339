"""The device, and mixed precision where it is native: one rule for training and inference."""

from __future__ import annotations

from pathlib import Path

import torch

from genret.errors import GenretError
from genret.settings import Settings


def native_bf16(device: torch.device) -> bool:
    """Whether bfloat16 products are native on `device`, and so faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text(errors="replace") if device.type == "cpu" and cpu.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def autocast(device: torch.device, bf16: bool | str) -> torch.autocast:
    """The mixed-precision context for an option `bf16: auto | true | false`."""
    enabled = native_bf16(device) if bf16 == "auto" else bool(bf16)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def device_of(settings: Settings) -> torch.device:
    """The device from the settings; `auto` is the GPU if there is one."""
    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    if settings.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(settings.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise GenretError(f"GENRET_DEVICE is {settings.device}, but torch sees no GPU; set it to cpu or auto")
    return device
