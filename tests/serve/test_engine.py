"""Dynamic batching: who shares a step, who is dropped, who has to come back later. The model is a stand-in."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest

from genret.api import Restriction, SearchResult
from genret.errors import UsageError
from genret.serve.engine import Engine, Job, give_back_memory
from genret.serve.errors import Refused
from genret.serve.metrics import Metrics
from genret.serve.options import ServeOptions


class Model:
    """Notes each step; `closed` holds back the next one."""

    def __init__(self) -> None:
        self.steps: list[list[str]] = []
        self.open, self.entered = Event(), Event()
        self.open.set()

    def search(self, queries, k, *, num_beams=None, restrict=(), min_confidence=None):
        self.steps.append(list(queries))
        self.entered.set()
        assert self.open.wait(20)
        if any(one.where == "wrong" for one in restrict):
            raise UsageError("the filter is wrong")
        return [SearchResult(query, [], num_beams, k) for query in queries]


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def engine(model: Model) -> Iterator[Engine]:
    options = ServeOptions(batch_ms=50, max_batch=4, max_queue=6, timeout=10)
    engine = Engine(SimpleNamespace(retriever=model), options, Metrics())  # type: ignore[arg-type]
    engine.start()
    assert model.entered.wait(10)
    while not engine.ready:
        pass
    model.steps.clear()
    yield engine
    model.open.set()
    engine.stop()


def hold(engine: Engine, model: Model) -> list:
    """A query is in the model, so that others wait."""
    model.open.clear()
    model.entered.clear()
    futures = engine.submit([Job(query="held")])
    assert model.entered.wait(10)
    model.steps.clear()
    return futures


def test_queries_that_wait_together_share_steps_in_order(engine, model):
    hold(engine, model)
    futures = engine.submit([Job(query=f"q{i}") for i in range(6)])
    model.open.set()
    assert [future.result(10).query for future in futures] == [f"q{i}" for i in range(6)]
    assert model.steps == [["q0", "q1", "q2", "q3"], ["q4", "q5"]], "at most max_batch"


def test_only_equal_options_share_a_step(engine, model):
    hold(engine, model)
    jobs = [Job(query="a", k=1), Job(query="b", k=2), Job(query="c", k=1), Job(query="d", k=1, num_beams=9)]
    futures = engine.submit(jobs)
    model.open.set()
    assert [(one.num_beams, one.elapsed_ms) for one in (f.result(10) for f in futures)] == [
        (None, 1), (None, 2), (None, 1), (9, 1),
    ]  # fmt: skip
    assert model.steps == [["a", "c"], ["b"], ["d"]]


def test_a_lone_query_waits_no_longer_than_the_limit(engine, model):
    import time

    began = time.perf_counter()
    engine.submit([Job(query="alone")])[0].result(10)
    assert time.perf_counter() - began < 1


def test_cancelled_queries_never_reach_the_model(engine, model):
    hold(engine, model)
    futures = engine.submit([Job(query="stays"), Job(query="leaves"), Job(query="stays too")])
    futures[1].cancel()
    model.open.set()
    futures[2].result(10)
    assert model.steps == [["stays", "stays too"]]


def test_a_request_that_is_cancelled_cancels_its_queries(engine, model):
    async def ask() -> None:
        task = asyncio.create_task(engine.answer([Job(query="leaves"), Job(query="leaves")]))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    held = hold(engine, model)
    asyncio.run(ask())
    model.open.set()
    held[0].result(10)
    engine.submit([Job(query="next")])[0].result(10)
    assert model.steps == [["next"]]
    assert engine.metrics.dropped._value.get() == 2


def test_a_full_queue_says_when_to_come_back(engine, model):
    hold(engine, model)
    engine.submit([Job(query="q")] + [Job(query="q") for _ in range(5)])
    with pytest.raises(Refused) as error:
        engine.submit([Job(query="one too many")])
    assert error.value.status_code == 429 and int(error.value.headers["Retry-After"]) >= 1
    model.open.set()


def test_several_queries_are_queued_together_or_not_at_all(engine, model):
    hold(engine, model)
    engine.submit([Job(query="q") for _ in range(4)])
    with pytest.raises(Refused):
        engine.submit([Job(query="x") for _ in range(3)])
    last = engine.submit([Job(query="y") for _ in range(2)])[-1]
    model.open.set()
    last.result(10)
    assert not any("x" in step for step in model.steps)


def test_one_wrong_filter_fails_alone(engine, model):
    hold(engine, model)
    futures = engine.submit([Job(query="a"), Job(query="b", restrict=Restriction("wrong")), Job(query="c")])
    model.open.set()
    assert futures[0].result(10).query == "a" and futures[2].result(10).query == "c"
    with pytest.raises(UsageError, match="the filter is wrong"):
        futures[1].result(10)


def test_what_takes_too_long_is_given_up(model):
    engine = Engine(SimpleNamespace(retriever=model), ServeOptions(timeout=0.1), Metrics())  # type: ignore[arg-type]
    engine.start()
    while not engine.ready:
        pass
    model.open.clear()
    with pytest.raises(Refused) as error:
        asyncio.run(engine.answer([Job(query="slow")]))
    assert error.value.status_code == 503 and "Retry-After" in error.value.headers
    model.open.set()
    engine.stop()


def test_functions_run_in_the_models_thread(engine):
    import threading

    name = asyncio.run(engine.call(lambda: threading.current_thread().name))
    assert name == "genret-model"


def test_what_waits_at_the_end_is_cancelled(model):
    engine = Engine(SimpleNamespace(retriever=model), ServeOptions(), Metrics())  # type: ignore[arg-type]
    engine.start()
    while not engine.ready:
        pass
    hold(engine, model)
    waiting = engine.submit([Job(query="waits")])[0]
    with engine._changed:
        engine._stopped = True
    model.open.set()
    engine.stop()
    assert waiting.cancelled()


def test_memory_is_given_back_between_steps_and_not_at_each(engine, monkeypatch):
    given, clock = [], [0.0]
    monkeypatch.setattr("genret.serve.engine.give_back_memory", lambda: given.append(clock[0]))
    monkeypatch.setattr("genret.serve.engine.time.monotonic", lambda: clock[0])
    for at in (1.0, 1e6, 1e6 + 1, 1e6 + 100):
        clock[0] = at
        engine.submit([Job(query="q")])[0].result(10)
    engine.submit([Job(query="after")])[0].result(10)  # what follows a step is over when the next one begins
    assert given == [1e6, 1e6 + 100]


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_what_was_freed_goes_back_to_the_system():
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    pieces = [bytes(2000) for _ in range(50_000)]
    kept = pieces[::500]  # so that the heap cannot shrink by itself
    del pieces
    before = resident()
    give_back_memory()
    assert before - resident() > 60 * 2**20 and len(kept) == 100
