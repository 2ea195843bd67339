"""One small trained run, and the application over it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from genret import Run
from genret.serve.app import create_app
from genret.serve.options import ServeOptions
from genret.testing.world.run import watched_run

LOCAL = "http://127.0.0.1:8000"


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Iterator[Run]:
    with watched_run(tmp_path_factory.mktemp("serve"), "generative") as run:
        yield run


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Iterator[Run]:
    """A copy that a test may change; the weights in memory are shared."""
    shutil.copytree(trained.folder, folder := tmp_path / "run")
    with Run(folder, trained.registries, trained.settings, trained.components) as copy:
        yield copy


@pytest.fixture
def serving() -> Iterator[Callable[..., TestClient]]:
    """`serving(run, rate=0, ...)`: a client of the application, once its model is loaded."""
    with ExitStack() as stack:

        def start(run: Run, base: str = LOCAL, **options: Any) -> TestClient:
            app = create_app(run, ServeOptions(**{"rate": 0, **options}))
            client = stack.enter_context(TestClient(app, base, client=("127.0.0.1", 50000)))
            wait_until_ready(app.state.engine)
            return client

        yield start


@pytest.fixture
def client(run: Run, serving: Callable[..., TestClient]) -> TestClient:
    """One that may change pictures."""
    found = serving(run)
    found.headers["X-Genret-Token"] = found.get("/v1/token").json()["token"]
    return found


def wait_until_ready(engine: Any, seconds: float = 60) -> None:
    import time

    until = time.monotonic() + seconds
    while not engine.ready and time.monotonic() < until:
        assert engine.failed is None, engine.failed
        time.sleep(0.01)
    assert engine.ready
