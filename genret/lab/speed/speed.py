"""Wall-clock times of interleaved searches.

On a shared machine, or one with a varying clock rate, only interleaved measurements are comparable. So every candidate
runs once per round, a different one first each time, and medians are compared.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

ROUNDS = 30
LEAST_ROUNDS = 5
SECONDS = 60.0
"""Time limit of one comparison; at least `LEAST_ROUNDS` rounds are run."""


class Timing(NamedTuple):
    """Seconds of one call."""

    median: float
    low: float
    """First quartile"""
    high: float
    """Third quartile"""
    best: float
    rounds: int

    def as_json(self, batch: int) -> dict[str, Any]:
        """Queries per second, for calls with `batch` queries."""
        return {
            "queries_per_s": round(batch / self.median, 3),
            "quartiles": [round(batch / self.high, 3), round(batch / self.low, 3)],
            "ms_per_query": round(1000 * self.median / batch, 4),
            "rounds": self.rounds,
        }


def alternate(
    rivals: Sequence[Callable[[int], Any]],
    device: torch.device,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    least_rounds: int = LEAST_ROUNDS,
    first: int = 1,
) -> list[Timing]:
    """Times each candidate, called with the number of the round, by which it may choose its queries.

    Round 0 is a warm-up. Counted rounds start at `first`: `rounds` of them, or as many as start within `seconds`, at
    least `least_rounds`. Times include tokenization and, on a GPU, all queued work.
    """
    for rival in rivals:
        rival(0)
    _synchronize(device)
    taken: list[list[float]] = [[] for _ in rivals]
    began = time.perf_counter()
    was_enabled = gc.isenabled()
    for number in range(first, first + rounds):
        if number - first >= least_rounds and time.perf_counter() - began > seconds:
            break
        gc.collect()
        gc.disable()
        try:
            for turn in range(len(rivals)):
                at = (turn + number) % len(rivals)
                start = time.perf_counter()
                rivals[at](number)
                _synchronize(device)
                taken[at].append(time.perf_counter() - start)
        finally:
            if was_enabled:
                gc.enable()
    return [_timing(times) for times in taken]


def _timing(times: list[float]) -> Timing:
    low, median, high = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
    return Timing(median, low, high, min(times), len(times))


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
