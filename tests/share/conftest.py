"""The tiny run of the end-to-end tests, its bundle, and a server that speaks the hub's API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import failed, one_thread, tiny  # noqa: F401 (fixtures)
from tests.share.hub import Hub, running_hub


@pytest.fixture(scope="session")
def bundle(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """The tiny run's bundle as a folder, with everything that there can be. Tests leave it as it is."""
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    answer = tiny.genret("push", "tiny-1", folder, "--thumbnails", "--license", "apache-2.0")
    assert answer.code == 0, answer.err
    return folder


@pytest.fixture(scope="session")
def found(tiny: Any) -> Callable[[Path | None], list[Any]]:  # noqa: F811
    """What two searches find in a home, without the time they took and where the pictures lie."""

    def search(home: Path | None = None) -> list[Any]:
        answer = tiny.genret("search", "--queries", "-", "-k", 8, home=home, stdin="a red square\nsome orange ground\n")
        assert answer.code == 0, answer.err
        results = [json.loads(line) for line in answer.out.splitlines()]
        assert all(result["hits"] for result in results)
        for result in results:
            del result["elapsed_ms"]
            for hit in result["hits"]:
                hit["uri"] = Path(hit["uri"]).name
        return results

    return search


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A server of the hub's API, which the library finds as on any machine, by HF_ENDPOINT."""
    from huggingface_hub import constants

    with running_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        for name, value in {  # what the library read from these variables when it was imported
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_CACHE": str(tmp_path / "hf" / "hub"),
            "HF_HUB_OFFLINE": False,
        }.items():
            monkeypatch.setattr(constants, name, value)
        yield server
