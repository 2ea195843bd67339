"""Interleaved times of named candidates (genret/lab/speed/speed.py), and the memory that a function needs."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from genret.lab.speed import speed
from genret.lab.speed.speed import Timing
from genret.toolbox import memory


class Rival(NamedTuple):
    name: str
    run: Callable[[int], Any]
    """Does the work once. Its argument is the round, so that each round can use other queries."""


def alternate(
    rivals: Sequence[Rival], device: torch.device, rounds: int, seconds: float = 60.0, at_least: int = 3
) -> list[Timing]:
    """Times the candidates in turns: one warm-up round, then `rounds`, or as many as start within `seconds`."""
    return speed.alternate([rival.run for rival in rivals], device, rounds, seconds, least_rounds=at_least, first=0)


class Cost(NamedTuple):
    seconds: float
    peak_bytes: int
    """Peak growth of the process's memory."""
    peak_objects: int
    """Peak growth of Python's allocated memory blocks."""
    result: Any


def cost_of(work: Callable[[], Any]) -> Cost:
    """Runs `work` once. Peaks are sampled every few milliseconds, so they may be slightly too low."""
    gc.collect()
    give_back_freed()
    before = resident_bytes(), sys.getallocatedblocks()
    peak = list(before)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.003):
            peak[0] = max(peak[0], resident_bytes())
            peak[1] = max(peak[1], sys.getallocatedblocks())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.perf_counter()
    try:
        result = work()
        seconds = time.perf_counter() - start
    finally:
        done.set()
        watcher.join()
    peak[0] = max(peak[0], resident_bytes())
    return Cost(seconds, peak[0] - before[0], peak[1] - before[1], result)


def give_back_freed() -> None:
    """Returns free memory of malloc to the system; reusing it would not be measured as growth."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc
    if trim is not None:
        trim(0)


def resident_bytes() -> int:
    """The process's current memory (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * _PAGE


def free_bytes(device: torch.device) -> int:
    """Free memory of a GPU, or of this machine (Linux)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = memory.free_bytes()
    assert free is not None, "Linux says it"
    return free


_PAGE = 4096
