"""The command line that the parts written for this folder share."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bench import machine, report
from bench.report import Section

NOT_MEASURED = 3
"""Exit code of a part that lacks what it needs, such as data; its last line says what."""


def parser(about: str) -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(description=about)
    parse.add_argument("--device", default="cuda")
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--out", type=Path, required=True)
    return parse


def measure(arguments: argparse.Namespace, sections: dict[str, Callable[[], Section]]) -> None:
    """Makes the sections one after another, and saves each at once: what is stopped later keeps the earlier ones."""
    device = torch.device(arguments.device)
    for name, make in sections.items():
        about, began = machine.facts(device), time.perf_counter()
        section = report.as_json(make(), about, {"device": str(device), "quick": arguments.quick})
        section["measured"]["took_seconds"] = round(time.perf_counter() - began)
        report.save(arguments.out, name, section)
        print(report.page({name: section}), flush=True)


def peak_mb(device: torch.device) -> float | None:
    """Peak memory of the GPU since the last reset; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
