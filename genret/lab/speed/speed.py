"""Wall-clock times of searches that take turns.

On a machine that others use, or that changes its clock, only times taken side by side compare. So rivals run round
after round, each once per round, another one first each time, and medians are compared. What they do is not known here.
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
"""For all rounds of one comparison; `LEAST_ROUNDS` are made however long they take."""


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
        """Of a call that answers `batch` queries."""
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
    """Times what each rival does when it is called with the number of the round, by which it may choose its queries.

    Round 0 warms up. Those that count are numbered from `first`: `rounds` of them, or as many as begin within
    `seconds`, but no fewer than `least_rounds`. The clock stands still for nothing that a caller would wait for:
    tokenizing, and on a GPU everything queued.
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
