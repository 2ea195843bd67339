"""One thread for the model: queries of concurrent requests share its steps (dynamic batching).

Queries with equal options that wait at the same time are one call of `Retriever.search`, so each gets the answer that
it would get alone. The queue is bounded, and a query that is cancelled before its step is dropped.
"""

from __future__ import annotations

import asyncio
import ctypes
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Any

from genret.api import Restriction, SearchResult
from genret.errors import GenretError
from genret.run import Run
from genret.search.catalog import CatalogRetriever
from genret.serve.errors import Refused
from genret.serve.metrics import Metrics
from genret.serve.options import ServeOptions

EVERYTHING = Restriction()
TIDY_SECONDS = 5.0
"""Between two times that the memory of past steps is given back."""
WEIGHT = 0.2
"""How much the latest step counts in the average time of a query."""


@dataclass(eq=False, kw_only=True)
class Job:
    """One query, or a function that needs the model's thread."""

    query: str = ""
    k: int = 10
    num_beams: int | None = None
    min_confidence: float | None = None
    restrict: Restriction = EVERYTHING
    function: Callable[[], Any] | None = None
    future: Future[Any] = field(default_factory=Future)

    @property
    def kind(self) -> Any:
        """Jobs of equal kind share a step."""
        return id(self) if self.function else (self.k, self.num_beams, self.min_confidence)


class Engine:
    """Started by `start`, ended by `stop`. Thread-safe."""

    def __init__(self, run: Run, options: ServeOptions, metrics: Metrics):
        self.run, self.options, self.metrics = run, options, metrics
        self.ready = False
        self.failed: str | None = None
        """Why the model could not be loaded."""
        self._waiting: deque[Job] = deque()
        self._changed = Condition()
        self._stopped = False
        self._seconds = 0.05
        """Average time of a query."""
        self._is_shared = False
        """Whether the latest step had company; a lone query does not wait for more."""
        self._thread = Thread(target=self._work, name="genret-model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(timeout=30)

    def check_ready(self) -> None:
        """`Refused` 503 until the model is loaded."""
        if not self.ready:
            raise Refused(503, self.failed or "the model is being loaded; try again soon", None, {"Retry-After": "2"})

    # ---------------------------------------------------------------------------------------------------- asking
    def submit(self, jobs: list[Job]) -> list[Future[Any]]:
        """Queues all of them or none: `Refused` 429 if the queue is full, 503 if there is no model yet."""
        self.check_ready()
        with self._changed:
            if len(self._waiting) + len(jobs) > self.options.max_queue:
                wait = math.ceil(max(1.0, len(self._waiting) * self._seconds))
                self.metrics.refused.inc()
                raise Refused(429, f"{len(self._waiting)} queries wait already", None, {"Retry-After": str(wait)})
            self._waiting.extend(jobs)
            self.metrics.waiting.set(len(self._waiting))
            self._changed.notify_all()
        return [job.future for job in jobs]

    async def answer(self, jobs: list[Job]) -> list[Any]:
        """Waits for all; cancelling it drops those that no step has begun with."""
        futures = [asyncio.wrap_future(future) for future in self.submit(jobs)]
        try:
            async with asyncio.timeout(self.options.timeout):
                return list(await asyncio.gather(*futures))
        except TimeoutError:
            raise Refused(503, "the search took too long", "too_slow", {"Retry-After": "5"}) from None
        finally:
            for job in jobs:
                job.future.cancel()

    async def call(self, function: Callable[[], Any]) -> Any:
        """Runs a function in the model's thread."""
        return (await self.answer([Job(function=function)]))[0]

    # ---------------------------------------------------------------------------------------------------- the thread
    def _work(self) -> None:
        try:
            # loads the weights and the index, and takes the memory that a full step needs
            self.run.retriever.search(["a picture"] * self.options.max_batch, 1)
            self.ready = True
        except Exception as error:
            self.failed = f"the run cannot be searched: {error}"
            return
        if isinstance(self.run.retriever, CatalogRetriever):
            with suppress(GenretError):  # the first query with a tie needs it, and would wait for seconds
                self.run.retriever.text_vectors(["a picture"])
        tidied = time.monotonic()
        while (batch := self._next()) is not None:
            begun = [job for job in batch if job.future.set_running_or_notify_cancel()]
            self.metrics.dropped.inc(len(batch) - len(begun))
            if begun:
                started = time.perf_counter()
                self._step(begun)
                took = time.perf_counter() - started
                self.metrics.batch.observe(len(begun))
                self.metrics.step.observe(took)
                self._seconds += WEIGHT * (took / len(begun) - self._seconds)
            if time.monotonic() - tidied > TIDY_SECONDS:
                give_back_memory()
                tidied = time.monotonic()

    def _next(self) -> list[Job] | None:
        """The oldest job and those that fit to it, after waiting a little for more; None at the end."""
        with self._changed:
            while not self._waiting and not self._stopped:
                self._changed.wait()
            if self._stopped:
                for job in self._waiting:
                    job.future.cancel()
                return None
            until = time.monotonic() + self._is_shared * self.options.batch_ms / 1000
            kind = self._waiting[0].kind
            while (left := until - time.monotonic()) > 0 and not self._stopped:
                if (
                    self._waiting[0].function
                    or sum(job.kind == kind for job in self._waiting) >= self.options.max_batch
                ):
                    break
                self._changed.wait(left)
            batch = [job for job in self._waiting if job.kind == kind][: self.options.max_batch]
            taken = set(map(id, batch))
            self._waiting = deque(job for job in self._waiting if id(job) not in taken)
            self._is_shared = len(batch) + len(self._waiting) > 1
            self.metrics.waiting.set(len(self._waiting))
            return batch

    def _step(self, jobs: list[Job]) -> None:
        try:
            if jobs[0].function:
                jobs[0].future.set_result(jobs[0].function())
                return
            for job, found in zip(jobs, self._search(jobs), strict=True):
                job.future.set_result(found)
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
                return
            for job in jobs:  # one wrong filter must not fail the others
                self._step([job])

    def _search(self, jobs: list[Job]) -> list[SearchResult]:
        first = jobs[0]
        return self.run.retriever.search(
            [job.query for job in jobs],
            first.k,
            num_beams=first.num_beams,
            restrict=[job.restrict for job in jobs],
            min_confidence=first.min_confidence,
        )


def give_back_memory() -> None:
    """Glibc keeps what is freed, in a heap for each of many threads, and with it a server grows for minutes."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
