"""How a processor's cores share a batch: each takes some of its rows through all operations.

Torch lets its threads share every single operation instead. Then each of hundreds of operations waits for the
slowest thread, and whatever is small, or Python, keeps the others idle. Knows nothing of models.
"""

from __future__ import annotations

import ctypes
import os
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
KEPT_BYTES = 1 << 30
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of mallopt (malloc.h)
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


@cache
def keep_memory() -> None:
    """Tells glibc to keep memory that is freed, up to `KEPT_BYTES`, for the next tensor of that size.

    Otherwise it goes back to the system with every large tensor, and comes again page by page, filled with zeros: a
    third of the time of searches in large batches. What MALLOC_* or GLIBC_TUNABLES say is left alone.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if set_option is not None:
        for option, value in ((_MMAP_THRESHOLD, KEPT_BYTES), (_TRIM_THRESHOLD, KEPT_BYTES), (_ARENA_MAX, 1)):
            set_option(option, value)


def release_memory() -> None:
    """Gives all free memory back to the system, pages between used ones as well; for now and then."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
