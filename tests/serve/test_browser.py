"""The page in a real browser: one headless Chromium for all tests of this file."""

from __future__ import annotations

import base64
import io
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn
from PIL import Image

from genret import Run
from genret.serve.app import create_app
from genret.serve.options import ServeOptions

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
SECONDS = 10_000  # milliseconds that anything may take

pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="no Chromium on this machine: the page is not tested in a browser (apt-get install chromium)",
)


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
        return self.page.locator("#grid a").evaluate_all("links => links.map(one => one.dataset.id)")


@pytest.fixture(scope="module")
def site(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A copy of the run, served; stopped after this file, so that no event loop stays behind for others."""
    from playwright.sync_api import sync_playwright

    shutil.copytree(trained.folder, folder := tmp_path_factory.mktemp("site") / "pictures")
    with Run(folder, trained.registries, trained.settings, trained.components) as run:
        app = create_app(run, ServeOptions(rate=0))
        server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", 0, log_level="error"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        until = time.monotonic() + 60
        while not (server.started and app.state.engine.ready) and time.monotonic() < until:
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
            yield Site(f"http://127.0.0.1:{port}", run, browser)
            browser.close()
        server.should_exit = True
        thread.join(20)


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


def png(colour: tuple[int, int, int], size: int = 24) -> bytes:
    """The world's encoder knows an image by its colour: row and group."""
    out = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(out, "PNG")
    return out.getvalue()


def drop(page: Any, target: str, files: list[tuple[str, bytes]]) -> None:
    """Drops files as a person does: real File objects in a real drop event."""
    given = [[name, base64.b64encode(data).decode()] for name, data in files]
    transfer = page.evaluate_handle(
        """given => { const transfer = new DataTransfer();
        for (const [name, data] of given) transfer.items.add(new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], name, {type: "image/png"}));
        return transfer; }""",
        given,
    )
    page.dispatch_event(target, "dragenter", {"dataTransfer": transfer})
    page.dispatch_event(target, "drop", {"dataTransfer": transfer})


def test_search_and_reload_from_the_address(site: Site, open_page: Any) -> None:
    session = open_page()
    page = session.page
    session.go("/")
    assert len(session.shown()) == 12 and page.locator("#told").inner_text().startswith("12 pictures")
    page.fill("#q", "a dog in the sea")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?q=a+dog+in+the+sea*")
    found = site.run.search("a dog in the sea", k=24)
    keys = site.run.retriever.catalog.keys_of([hit.image_id for hit in found.hits])
    assert session.shown() == [str(key) for key in keys], "the page shows what the run finds, in its order"
    assert (
        f"{found.num_beams} beams" in page.locator("#told").inner_text() and " ms" in page.locator("#told").inner_text()
    )
    before = session.shown()
    page.reload()
    assert session.shown() == before and page.input_value("#q") == "a dog in the sea"
    assert page.locator(".score").count() == 0
    session.go("/?q=a+dog+in+the+sea&scores=1")
    assert page.locator(".score").first.inner_text().startswith("1. ")
    for box in page.locator("#grid .frame").evaluate_all("all => all.map(one => one.getBoundingClientRect().height)"):
        assert box > 100
    assert page.evaluate("[...document.images].every(one => one.getAttribute('width') && one.getAttribute('height'))")


def test_filter_order_and_a_wrong_filter(site: Site, open_page: Any) -> None:
    session = open_page()
    session.go("/?q=a+dog")
    session.page.click("summary")
    session.page.fill("#where", "subject = dog")
    session.page.click("text=Apply")
    session.page.wait_for_url("**where=subject*")
    wanted = site.run.retriever.catalog.keys_where("subject = dog").tolist()
    assert sorted(map(int, session.shown())) == [key for key in wanted if key <= 12] and session.page.is_visible(
        "#where"
    )
    session.go("/?q=a+dog&sort=newest")
    assert session.shown() == sorted(session.shown(), key=int, reverse=True)
    session.go("/?sort=oldest")
    assert session.shown() == sorted(session.shown(), key=int)
    answer = session.go("/?q=a+dog&where=subject+%3D%3D%3D")
    assert answer.status == 400 and session.page.locator("[role=alert]").inner_text()
    session.complaints.clear()  # Chromium notes the status 400


def test_lightbox_symbols_and_likeness(site: Site, open_page: Any) -> None:
    session = open_page()
    page = session.page
    session.go("/?q=a+dog")
    first, second = session.shown()[:2]
    page.click("#grid a >> nth=0")
    page.wait_for_selector("dialog[open] .details")
    details = page.locator("dialog .details").inner_text()
    row = site.run.retriever.catalog.lookup(site.run.retriever.catalog.keys_of([f"new-{int(first) - 1}"]))[0]
    assert row.key == int(first) and row.metadata["subject"] in details and row.image_id in details
    assert page.locator("dialog .symbols a").count() > 0
    assert page.evaluate("document.querySelector('dialog .picture img').naturalWidth") > 0
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(f"dialog .details[data-id='{second}']")
    page.click("dialog >> text=Not like this")
    page.wait_for_url("**unlike=*")
    assert second not in session.shown() and page.locator(".chips .not").count() == 1
    page.click(".chips a")
    assert second in session.shown()
    page.click("#grid a >> nth=0")
    page.click("dialog >> text=More like this")
    page.wait_for_url("**/?like=*")
    assert first not in session.shown() and len(session.shown()) > 1


def test_explain_codebook_and_compare(site: Site, open_page: Any) -> None:
    session = open_page()
    page = session.page
    session.go("/?q=a+dog")
    last = session.shown()[-1]
    page.click("text=Why these?")
    told = site.run.explain("a dog")
    assert page.locator(".level").count() == len(told.levels)
    symbols = page.locator("#level-1 .prefixes >> nth=0").locator(".symbols").all_inner_texts()
    assert symbols == ["".join(one.symbols) for one in told.levels[0].prefixes if one.is_kept][: len(symbols)]
    session.go(f"/explain?q=a+dog&image={last}&beams=1")
    assert page.locator(".rightbox").count() == 1 and page.locator(".prefix.right").count() >= 1
    page.click("#level-1 .symbols a >> nth=0")
    page.wait_for_url("**/codebook?prefix=*")
    session.go("/codebook")
    counts = [int(text) for text in page.locator(".branch .label .quiet").all_inner_texts()]
    assert sum(counts) == 12 and page.locator(".branch .words").first.inner_text()
    page.click(".branch a >> nth=0")
    assert page.locator(".crumbs [aria-current]").inner_text().startswith("c0_")
    session.go("/compare?q=a+dog")
    assert page.locator(".sides section").count() == 2
    dense = page.locator(".sides section >> nth=1").locator("a.frame").evaluate_all("all => all.map(a => a.dataset.id)")
    assert sorted(dense, key=int) == sorted(map(str, range(1, 13)), key=int)


def test_adding_by_drop_deleting_and_undoing(site: Site, open_page: Any) -> None:
    session = open_page()
    page = session.page
    session.go("/")
    before = session.shown()
    drop(page, "#main", [("red.png", png((7, 0, 0))), ("blue.png", png((9, 0, 0))), ("notes.png", b"no picture")])
    page.wait_for_selector("#status:has-text('2 added')")
    assert "1 skipped" in page.locator("#status").inner_text()
    page.click("#status >> text=Show")
    added = [name for name in session.shown() if name not in before]
    assert len(added) == 2 and page.locator("#told").inner_text().startswith("14 pictures")
    uri = site.run.retriever.catalog.lookup(site.run.retriever.catalog.searchable_keys())[-1].uri
    assert Path(uri).is_relative_to(site.run.folder)

    page.click(f"#grid a[data-id='{added[0]}']")
    page.click("dialog >> text=Delete")
    page.wait_for_selector("#status:has-text('Undo')")
    assert added[0] not in session.shown() and len(session.shown()) == 13
    page.click("#status >> text=Undo")
    page.wait_for_selector("#status:has-text('It is back')")
    after = session.shown()
    page.reload()
    assert sorted(session.shown()) == sorted(after) and len(after) == 14
    for name in set(after) - set(before):
        page.click(f"#grid a[data-id='{name}']")
        page.click("dialog >> text=Delete")
        page.wait_for_selector(f"#grid a[data-id='{name}']", state="detached")
    page.reload()
    assert session.shown() == before


def test_searching_by_a_dropped_and_a_pasted_picture(site: Site, open_page: Any) -> None:
    session = open_page()
    page = session.page
    session.go("/")
    own = page.evaluate("fetch('/v1/images/3/file').then(a => a.arrayBuffer()).then(b => [...new Uint8Array(b)])")
    drop(page, ".search", [("mine.png", bytes(own))])
    page.wait_for_selector("#told:has-text('like yours')")
    assert session.shown()[0] == "3", "a picture is most like itself"
    session.go("/?q=a+dog")
    page.evaluate(
        """bytes => { const data = new DataTransfer(); data.items.add(new File([Uint8Array.from(bytes)], "p.png", {type: "image/png"}));
        document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true})); }""",
        own,
    )
    page.wait_for_selector("#told:has-text('like yours')")
    assert session.shown()[0] == "3" and len(session.shown()) == 12


def test_what_another_process_indexes_appears(site: Site, open_page: Any, tmp_path: Path) -> None:
    from genret.catalog.place import place_of
    from genret.catalog.store import Catalog

    session = open_page()
    session.go("/")
    own = site.run.retriever.catalog
    with Catalog.open(place_of(site.run.folder)) as other:  # a connection of its own, as another process has
        from genret.serve.listing import Listing, whole

        listing = Listing(site.run)
        other.add(
            [
                whole(listing, own.lookup(own.searchable_keys()[:1])[0])._replace(
                    image_id="else", uri="else.png", split=None
                )
            ]
        )
    session.page.wait_for_selector("#status:has-text('have changed')")
    session.page.click("#status >> text=Show")
    assert len(session.shown()) == 13 and "else" in session.page.locator("#grid").inner_text()
    session.go("/?q=a+dog")
    assert len(session.shown()) == 13
    own.remove(["else"])


def test_keyboard_alone(site: Site, open_page: Any) -> None:
    session = open_page()
    page = session.page
    session.go("/codebook")
    page.keyboard.press("/")
    page.keyboard.type("a dog")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?q=a+dog")

    def focused() -> Any:
        return page.evaluate("document.activeElement.dataset.id ?? document.activeElement.id")

    ids = session.shown()
    page.keyboard.press("ArrowDown")
    assert focused() == ids[0]
    page.keyboard.press("ArrowRight")
    assert focused() == ids[1]
    page.keyboard.press("ArrowDown")
    wide = page.evaluate(
        "[...document.querySelectorAll('#grid a')].filter((a, n, all) => a.offsetTop === all[0].offsetTop).length"
    )
    assert focused() == ids[1 + wide]
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="detached")
    assert focused() == ids[1 + wide], "closing gives the focus back"
    page.keyboard.press("/")
    assert focused() == "q"
    page.keyboard.press("Escape")
    assert focused() != "q"
    session.go("/")
    page.locator("body").press("Tab")
    assert page.evaluate("document.activeElement !== document.body")


@pytest.mark.parametrize(
    "path", ["/?q=a+dog&scores=1", "/image/3", "/explain?q=a+dog&image=3", "/codebook", "/compare?q=a+dog"]
)
def test_phone_width_has_no_sideways_scrolling(open_page: Any, path: str) -> None:
    session = open_page(360, 740, has_touch=True)
    session.go(path)
    outside = """[...document.querySelectorAll("*")].filter(one => one.getBoundingClientRect().right > innerWidth + 1
        && !one.closest(".strip, .hidden")).map(one => one.outerHTML.slice(0, 80))"""
    assert session.page.evaluate(outside) == []
    assert session.page.evaluate("document.documentElement.scrollWidth") <= 360
    small = """all => all.map(one => [one.textContent.trim(), one.getBoundingClientRect()])
        .filter(([, box]) => box.width && (box.height < 24 || box.width < 24)).map(([text]) => text)"""
    controls = session.page.locator(
        "main a, main button, main input:not(.hidden), main select, header a, header button"
    )
    assert controls.evaluate_all(small) == [], "every target has 24 pixels (WCAG 2.2, 2.5.8)"


def test_without_script_everything_is_a_link_or_a_form(open_page: Any) -> None:
    session = open_page(java_script_enabled=False)
    page = session.page
    session.go("/")
    page.fill("#q", "a dog")
    page.click(".search button")
    page.wait_for_url("**/?q=a+dog*")
    assert page.locator("#grid a").count() == 12 and not page.is_visible("text=Add pictures")
    page.click("#grid a >> nth=0")
    page.wait_for_url("**/image/*")
    assert page.is_visible(".details dl") and not page.is_visible("text=Delete")
    page.click("text=More like this")
    assert page.locator("#grid a").count() == 11
    for path in ("/explain?q=a+dog", "/codebook", "/compare?q=a+dog"):
        assert session.go(path).ok


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(open_page: Any, scheme: str) -> None:
    """axe-core: contrast, names, labels, roles, sizes of targets; no finding of any weight."""
    from axe_playwright_python.sync_playwright import Axe

    session = open_page(color_scheme=scheme, bypass_csp=True)
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
    for path in (
        "/",
        "/?q=a+dog&scores=1&unlike=3",
        "/image/3",
        "/explain?q=a+dog&image=3",
        "/codebook",
        "/compare?q=a+dog",
    ):
        session.go(path)
        if path == "/":
            session.page.click("summary")
            session.page.click("#grid a >> nth=0")
            session.page.wait_for_selector("dialog[open] .details")
        found = Axe().run(session.page, options=rules).response["violations"]
        assert [(one["id"], one["impact"], one["nodes"][0]["html"]) for one in found] == [], path
    session.page.evaluate("document.querySelector('main').append(document.createElement('button'))")
    assert [one["id"] for one in Axe().run(session.page, options=rules).response["violations"]] == ["button-name"]


def test_weight_and_what_a_page_asks_for(site: Site, open_page: Any) -> None:
    """At most 60 kB without pictures, nothing from elsewhere (`open_page` looks), no layout shift while pictures load."""
    session = open_page()
    page = session.page
    for path in ("/", "/?q=a+dog", "/codebook", "/compare?q=a+dog", "/explain?q=a+dog"):
        answers: list[Any] = []

        def note(answer: Any, answers: list[Any] = answers) -> None:
            answers.append(answer)

        page.on("response", note)
        session.go(path)
        page.wait_for_load_state("networkidle")
        page.remove_listener("response", note)
        bodies = [one.body() for one in answers if "/v1/images/" not in one.url]
        assert len(bodies) >= 3 and sum(map(len, bodies)) <= 60_000, path
        shift = """new Promise(done => new PerformanceObserver(list => done(list.getEntries().reduce((a, b) => a + b.value, 0)))
            .observe({type: "layout-shift", buffered: true}) ?? setTimeout(() => done(0), 200))"""
        assert page.evaluate(shift) < 0.01, path
