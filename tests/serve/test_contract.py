"""The API held against its own OpenAPI document by schemathesis, in this process.

From the document alone it makes valid and invalid requests, and chains of them that use what earlier answers named
(stateful). Every answer has to be one that the document describes; 5xx is a failure.

    pytest -m slow tests/serve/test_contract.py     # more than 10,000 requests
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pytest
import schemathesis
from fastapi import Response
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from genret.serve.app import create_app
from genret.serve.options import ServeOptions
from tests.serve.conftest import wait_until_ready

DOCUMENT = "/v1/openapi.json"
OWN = "127.0.0.1:8000"
ACCEPTED = ["2xx", "3xx", "400", "403", "404", "409", "429", "503"]
"""Answers to a request of the documented shape. 400 says that its content means nothing, such as a filter."""


FILES_ARE_BYTES = {
    "include-operation-id": "index_files",
    "checks": {"negative_data_rejection": {"enabled": False}},  # a number is as good a content of a file as any
}


class Counting:
    """The application without its start and end, with a count of its answers."""

    def __init__(self, app: Any):
        self.app, self.answers = app, Counter[int]()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError

        async def counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.answers[message["status"]] += 1
            await send(message)

        await self.app(scope, receive, counted)


@pytest.fixture
def counting(run):
    app = create_app(run, ServeOptions(rate=0))
    app.state.engine.start()
    wait_until_ready(app.state.engine)
    yield Counting(app)
    app.state.engine.stop()


def faults_of(counting: Counting, examples: int, coverage: bool) -> tuple[list[str], Counter[str]]:
    """What schemathesis complains of, and the number of requests by phase."""
    token = counting.app.state.access.page_token()
    config = SchemathesisConfig.from_dict(
        {
            "seed": 0,
            "base-url": f"http://{OWN}",
            "headers": {"X-Genret-Token": token},
            "generation": {"max-examples": examples, "database": "none", "deterministic": True},
            "phases": {"examples": {"enabled": False}, "coverage": {"enabled": coverage}},
            "checks": {"positive_data_acceptance": {"expected-statuses": ACCEPTED}},
            "operations": [FILES_ARE_BYTES],
            "continue-on-failure": True,
        }
    )
    schema = schemathesis.openapi.from_asgi(DOCUMENT, counting, config=config, headers={"Host": OWN})
    faults, requests = dict[tuple[str, str], str](), Counter[str]()
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            faults[type(event).__name__, str(vars(event) if hasattr(event, "__dict__") else event)] = ""
        if isinstance(event, events.ScenarioFinished):
            requests[event.phase.name] += len(event.recorder.interactions)
            for checks in event.recorder.checks.values():
                for one in checks:
                    if one.failure_info is not None:
                        found = one.failure_info
                        key = found.failure.operation, found.failure.title
                        faults.setdefault(key, f"{found.failure.message}\n{found.code_sample}"[:2000])
    return [f"{where}: {what}\n{how}" for (where, what), how in faults.items()], requests


def test_requests_from_the_document(counting, caplog):
    caplog.set_level(logging.CRITICAL)
    faults, requests = faults_of(counting, 3, coverage=True)
    assert faults == [], "\n\n".join(faults)
    assert requests["COVERAGE"] >= 500 and requests["FUZZING"] >= 30 and requests["STATEFUL_TESTING"] >= 15, requests
    assert counting.answers.total() >= requests.total() and counting.answers[200] >= 50
    assert not [status for status in counting.answers if status >= 500]


def test_it_notices_what_the_document_does_not_describe(counting):
    """The check of the check."""
    honest = counting.app

    async def other(scope: Any, receive: Any, send: Any) -> None:
        app = Response("x", 418) if scope["path"] == "/indices-list" else honest
        await app(scope, receive, send)

    other.state = honest.state  # type: ignore[attr-defined]
    counting.app = other
    faults, _ = faults_of(counting, 1, coverage=False)
    assert {one.partition(":")[0] for one in faults} == {"GET /indices-list"} and "418" in faults[0], faults


@pytest.mark.slow
def test_ten_thousand_requests_from_the_document(counting, caplog, record_property):
    caplog.set_level(logging.CRITICAL)
    faults, requests = faults_of(counting, 600, coverage=True)
    record_property("requests", dict(requests))
    print(f"{requests.total():,} requests: {dict(requests)}; answers: {dict(sorted(counting.answers.items()))}")
    assert faults == [], "\n\n".join(faults)
    assert requests.total() >= 10_000 and requests["STATEFUL_TESTING"] >= 200 and requests["COVERAGE"] >= 500
    assert counting.answers[200] >= 2000 and not [status for status in counting.answers if status >= 500]
