"""One server and one headless Chromium for all tests of this folder; both end with it, so that no event loop stays
behind for other tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from genret import Run
from genret.serve.app import create_app
from genret.serve.options import ServeOptions
from tests.serve.live import listening

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
SECONDS = 10_000  # milliseconds that anything may take


class Site(NamedTuple):
    address: str
    run: Run
    browser: Any


class Session(NamedTuple):
    page: Any
    complaints: list[str]

    def go(self, path: str) -> Any:
        return self.page.goto(path)

    def shown(self) -> list[str]:
        self.page.wait_for_load_state()  # the pictures come after the rest of the page
        return self.page.locator("#grid a").evaluate_all("links => links.map(one => one.dataset.id)")


@pytest.fixture(scope="module")
def site(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A copy of the run, served."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: the page is not tested in a browser (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    shutil.copytree(trained.folder, folder := tmp_path_factory.mktemp("site") / "pictures")
    with (
        Run(folder, trained.registries, trained.settings, trained.components) as run,
        listening(create_app(run, ServeOptions(rate=0))) as address,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield Site(address, run, browser)
        browser.close()


@pytest.fixture
def open_page(site: Site) -> Iterator[Any]:
    """`open_page(width=..., ...)` opens a page; in the end none may have complained."""
    contexts, sessions = [], []

    def start(width: int = 1280, height: int = 900, **options: Any) -> Session:
        context = site.browser.new_context(
            base_url=site.address, viewport={"width": width, "height": height}, reduced_motion="reduce", **options
        )
        context.set_default_timeout(SECONDS)
        page, complaints = context.new_page(), []
        page.on("console", lambda one: complaints.append(one.text) if one.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda one: None if one.url.startswith((site.address, "data:", "blob:")) else complaints.append(one.url),
        )
        contexts.append(context)
        sessions.append(Session(page, complaints))
        return sessions[-1]

    yield start
    for context in contexts:
        context.close()
    assert [text for session in sessions for text in session.complaints] == []
