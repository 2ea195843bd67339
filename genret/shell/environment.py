"""The environment that a run was made in: versions, machine, time."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

PACKAGES = ("genret", "torch", "transformers", "timm", "open_clip_torch", "peft", "tokenizers", "sqlalchemy", "pillow")


def describe(device: torch.device, seed: int, plugins: Iterable[str] = ()) -> dict[str, Any]:
    """Everything needed to reproduce the figures. `plugins`: packages whose requirements (weights, data) count too."""
    wanted = dict.fromkeys([*PACKAGES, *(name for plugin in plugins for name in _requirements(plugin))])
    return {
        "python": sys.version.split()[0],
        "packages": {name: found for name in wanted if (found := _version(name))},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "seed": seed,
        "git_commit": _git_commit(),
    }


def peak_memory_mb() -> int | None:
    """The peak memory of this process; None if the system does not report it."""
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024 * 1024 if sys.platform == "darwin" else 1024))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _requirements(package: str) -> list[str]:
    """The packages that a package asks for; none if it is not installed."""
    try:
        return [re.split(r"[^\w.-]", one, maxsplit=1)[0] for one in requires(package) or ()]
    except PackageNotFoundError:
        return []


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _git_commit() -> str | None:
    """The commit of the running source tree, if it is a git checkout and git is installed."""
    try:
        found = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
