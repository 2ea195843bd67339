"""How a processor's cores share a batch: each takes some of its rows through all operations.

Torch lets its threads share every single operation instead. Then each of hundreds of operations waits for the
slowest thread, and whatever is small, or Python, keeps the others idle. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier, Lock
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")
ROWS = 4
"""Of a part, at least: fewer would leave Python's lock, which all threads share, most of the work."""
_lock = Lock()


def num_parts(num_rows: int, device: torch.device) -> int:
    """Into how many parts of its rows a batch is split."""
    return max(1, min(torch.get_num_threads(), num_rows // ROWS)) if device.type == "cpu" else 1


def side_by_side(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """The results in order; each item in a thread of its own, which has its share of torch's threads."""
    if len(items) < 2:
        return [function(item) for item in items]
    with _lock:
        pool = _pool(len(items), max(1, torch.get_num_threads() // len(items)))
    waiting = [pool.submit(function, item) for item in items]
    errors = [error for one in waiting if (error := one.exception()) is not None]  # waits for all
    for error in errors:
        raise error
    return [one.result() for one in waiting]


@cache
def _pool(workers: int, threads: int) -> ThreadPoolExecutor:
    """Threads that live as long as the program: starting them costs as much as a small search."""
    own, all_there = torch.get_num_threads(), Barrier(workers)
    pool = ThreadPoolExecutor(workers, "genret-part", _begin, (threads,))
    for started in [pool.submit(all_there.wait) for _ in range(workers)]:
        started.result()
    torch.set_num_threads(own)  # what later threads of the program begin with
    return pool


def _begin(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.get_num_threads()  # before its first use in a thread, torch takes the number that was set last anywhere
