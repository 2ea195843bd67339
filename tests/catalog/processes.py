"""Real processes at one catalog, for `test_catalog_processes.py`: a program that takes orders on standard input.

A process of its own, so that forking copies nothing of pytest. An order is a line of JSON, and so is its answer.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from typing import Any

import numpy as np

from genret.catalog.store import Catalog, NewImage

SIZE = 40
"""Images of one addition."""
fork = multiprocessing.get_context("fork")


def images(name: str) -> list[NewImage]:
    return [NewImage(f"{name}-{i}", name, name, [b"C\x00" + bytes([i])]) for i in range(SIZE)]


def write(where: str, name: str, rounds: int, done: Any) -> None:
    """Adds; of every third addition takes half away again."""
    with Catalog.open(where) as catalog:
        for i in range(rounds):
            assert catalog.add(images(f"{name}{i}")).added == SIZE
            if i % 3 == 2:
                half = [row.image_id for row in images(f"{name}{i}")][: SIZE // 2]
                assert catalog.remove(half).removed == SIZE // 2
    done.release()


def read(where: str, stop: Any, answers: Any) -> None:
    """Follows the catalog by its changes; all that one snapshot says must agree."""
    seen: list[tuple[int, int]] = []
    slowest, wrong = 0.0, ""
    with Catalog.open(where) as catalog:
        known, held = catalog.version, set(catalog.searchable_keys().tolist())
        while not stop.is_set():
            began = time.monotonic()
            with catalog.snapshot() as view:
                version, count, keys = view.version, view.image_count(), view.searchable_keys()
                named = view.read_identifiers(searchable=True).image_keys
                changes = view.changes_since(known)
            slowest = max(slowest, time.monotonic() - began)
            held = (held - set(changes.removed.tolist())) | set(changes.added.image_keys.tolist())
            known = changes.version
            if not (
                count == len(keys) and np.array_equal(keys, named) and held == set(keys.tolist()) and known == version
            ):
                wrong = f"version {version}: {count} images, {len(keys)} keys, {len(named)} names, {len(held)} followed"
            seen.append((version, count))
    answers.put((seen, slowest, wrong))


def crowd(where: str, writers: int, readers: int, rounds: int) -> dict[str, Any]:
    done, stop, answers = fork.Semaphore(0), fork.Event(), fork.Queue()
    reading = [fork.Process(target=read, args=(where, stop, answers)) for _ in range(readers)]
    writing = [fork.Process(target=write, args=(where, name, rounds, done)) for name in "abcdef"[:writers]]
    for process in (*reading, *writing):
        process.start()
    for process in writing:
        process.join(60)
    stop.set()
    found = [answers.get(timeout=60) for _ in reading]
    for process in reading:
        process.join(60)
    return {
        "finished": sum(process.exitcode == 0 for process in (*reading, *writing)),
        "seen": [seen for seen, _, _ in found],
        "slowest": max(slowest for _, slowest, _ in found),
        "wrong": [wrong for _, _, wrong in found if wrong],
    }


def hold(where: str, ready: Any) -> None:
    """Begins an addition and never ends it."""

    def endless() -> Any:
        for i in range(200):
            yield from images(f"unfinished{i}")  # more than is written at a time
        ready.set()
        time.sleep(600)

    with Catalog.open(where) as catalog:
        catalog.add(endless())


def main() -> None:
    held: Any = None
    for line in sys.stdin:
        order = json.loads(line)
        answer: Any = True
        if order["do"] == "crowd":
            answer = crowd(order["where"], **order["how"])
        elif order["do"] == "hold":
            ready = fork.Event()
            held = fork.Process(target=hold, args=(order["where"], ready))
            held.start()
            answer = ready.wait(60)
        elif order["do"] == "kill":
            os.kill(held.pid, signal.SIGKILL)
            held.join(60)
            answer = held.exitcode
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
