"""What people do on the page, in a real browser."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image

from genret.catalog.place import place_of
from genret.catalog.store import Catalog
from genret.serve.listing import Listing, whole


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
        for (const [name, data] of given) {
            const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
            transfer.items.add(new File([bytes], name, {type: "image/png"}));
        }
        return transfer; }""",
        given,
    )
    page.dispatch_event(target, "dragenter", {"dataTransfer": transfer})
    page.dispatch_event(target, "drop", {"dataTransfer": transfer})


def test_search_and_reload_from_the_address(site: Any, open_page: Any) -> None:
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


def test_filter_order_and_a_wrong_filter(site: Any, open_page: Any) -> None:
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


def test_lightbox_symbols_and_likeness(site: Any, open_page: Any) -> None:
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


def test_explain_codebook_and_compare(site: Any, open_page: Any) -> None:
    session = open_page()
    page = session.page
    session.go("/?q=a+dog")
    last = session.shown()[-1]
    page.click("text=Why these?")
    told = site.run.explain("a dog")
    assert page.locator(".level").count() == len(told.levels)
    symbols = page.locator("#level-1 .prefixes >> nth=0").locator(".symbols").all_inner_texts()
    assert symbols == [" ".join(one.symbols) for one in told.levels[0].prefixes if one.is_kept][: len(symbols)]
    session.go(f"/explain?q=a+dog&image={last}&beams=1")
    assert page.locator(".rightbox").count() == 1 and page.locator(".prefix.right").count() >= 1
    page.click("#level-1 a.symbols >> nth=0")
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


def test_adding_by_drop_deleting_and_undoing(site: Any, open_page: Any) -> None:
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


def test_searching_by_a_dropped_and_a_pasted_picture(site: Any, open_page: Any) -> None:
    session = open_page()
    page = session.page
    session.go("/")
    own = page.evaluate("fetch('/v1/images/3/file').then(a => a.arrayBuffer()).then(b => [...new Uint8Array(b)])")
    drop(page, ".search", [("mine.png", bytes(own))])
    page.wait_for_selector("#told:has-text('like yours')")
    assert session.shown()[0] == "3", "a picture is most like itself"
    session.go("/?q=a+dog")
    page.evaluate(
        """bytes => { const clipboardData = new DataTransfer();
        clipboardData.items.add(new File([Uint8Array.from(bytes)], "p.png", {type: "image/png"}));
        document.dispatchEvent(new ClipboardEvent("paste", {clipboardData, bubbles: true, cancelable: true})); }""",
        own,
    )
    page.wait_for_selector("#told:has-text('like yours')")
    assert session.shown()[0] == "3" and len(session.shown()) == 12


def test_what_another_process_indexes_appears(site: Any, open_page: Any, tmp_path: Path) -> None:
    session = open_page()
    session.page.clock.install()
    session.go("/")
    own = site.run.retriever.catalog
    with Catalog.open(place_of(site.run.folder)) as other:  # a connection of its own, as another process has
        listing = Listing(site.run)
        other.add(
            [
                whole(listing, own.lookup(own.searchable_keys()[:1])[0])._replace(
                    image_id="else", uri="else.png", split=None
                )
            ]
        )
    session.page.clock.fast_forward(6000)
    session.page.wait_for_selector("#status:has-text('have changed')")
    session.page.click("#status >> text=Show")
    assert len(session.shown()) == 13 and "else" in session.page.locator("#grid").inner_text()
    session.go("/?q=a+dog")
    assert len(session.shown()) == 13
    own.remove(["else"])


def test_keyboard_alone(site: Any, open_page: Any) -> None:
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
    assert len(session.shown()) == 11
    for path in ("/explain?q=a+dog", "/codebook", "/compare?q=a+dog"):
        assert session.go(path).ok
