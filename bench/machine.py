"""The hardware and software of a measurement."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "transformers", "faiss-cpu", "sqlalchemy", "numpy")


def facts(device: torch.device) -> dict[str, Any]:
    """JSON: processor, threads, versions, commit, time and load before the run."""
    about = {
        "when": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "load_before": round(os.getloadavg()[0], 2),
        "device": str(device),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }
    if device.type == "cuda":
        about["gpu"] = torch.cuda.get_device_name(device)
        about["cuda"] = torch.version.cuda
        about["float32_matmul"] = torch.get_float32_matmul_precision()
    return about


def sentence(about: dict[str, Any]) -> str:
    """The facts as a sentence."""
    where = about.get("gpu") or f"{about['cores']} cores of {about['processor']}"
    return (
        f"{where}, {about['memory_gib']} GB, {about['threads']} threads, torch {about['versions']['torch']}, "
        f"transformers {about['versions']['transformers']}, Python {about['python']}; commit {about['commit']}, "
        f"{about['when']}, load before it {about['load_before']}"
    )


def commit() -> str:
    """The commit of the code; with a star if the code was changed since."""
    try:
        name = _git("rev-parse", "--short=10", "HEAD")
        return name + (
            "*" if _git("status", "--porcelain", "--untracked-files=no", "--", "genret", "bench/*.py") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def processor() -> str:
    """The processor's name and its features that affect speed."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"
