"""Wall-clock times of rivals that take turns, and the memory that a piece of work takes.

On a machine that others use, or that changes its clock, only times taken side by side compare. So the rivals of a
comparison run round after round, each once per round, the first of a round another one each time, and medians are
compared.
"""

from __future__ import annotations

import gc
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch


class Rival(NamedTuple):
    name: str
    run: Callable[[int], Any]
    """Does the work once. Its argument counts the rounds, so that each round can ask other queries."""


class Timing(NamedTuple):
    """Seconds of one call."""

    median: float
    low: float
    """First quartile."""
    high: float
    """Third quartile."""
    best: float
    rounds: int


def alternate(
    rivals: Sequence[Rival], device: torch.device, rounds: int, seconds: float = 60.0, at_least: int = 3
) -> list[Timing]:
    """Times the rivals in turns: one round to warm up, then `rounds` of them, or as many as begin within `seconds`.

    The clock stands still for nothing that a caller would wait for: tokenising and, on a GPU, everything queued.
    """
    for rival in rivals:
        rival.run(0)
    _synchronise(device)
    taken: list[list[float]] = [[] for _ in rivals]
    began = time.perf_counter()
    was_enabled = gc.isenabled()
    for number in range(rounds):
        if number >= at_least and time.perf_counter() - began > seconds:
            break
        gc.collect()
        gc.disable()
        try:
            for turn in range(len(rivals)):
                at = (turn + number) % len(rivals)
                start = time.perf_counter()
                rivals[at].run(number)
                _synchronise(device)
                taken[at].append(time.perf_counter() - start)
        finally:
            if was_enabled:
                gc.enable()
    return [_timing(times) for times in taken]


def _timing(times: list[float]) -> Timing:
    low, median, high = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
    return Timing(median, low, high, min(times), len(times))


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Cost(NamedTuple):
    seconds: float
    peak_bytes: int
    """The most that the process's memory grew meanwhile; none of it need be left."""
    peak_objects: int
    """The most pieces of memory that Python's objects took meanwhile, beyond those of before."""
    result: Any


def cost_of(work: Callable[[], Any]) -> Cost:
    """Runs `work` once. Peaks are read every few milliseconds, so that they are at most a trifle too low."""
    gc.collect()
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


def resident_bytes() -> int:
    """What the process holds in memory now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * _PAGE


def free_bytes(device: torch.device) -> int:
    """What is left on a GPU, or in this machine (Linux)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


_PAGE = 4096
