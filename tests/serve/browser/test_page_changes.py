"""Folders that are dropped, orders over several pages, removals of the data set's own pictures, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.serve.browser.test_page import png

WATCH = """() => { window.seen = [];
    new MutationObserver(() => { const bar = document.querySelector("#status progress");
        if (bar) window.seen.push([bar.value, bar.max, document.querySelector("#status").textContent]); })
    .observe(document.querySelector("#status"), {subtree: true, childList: true, attributes: true}); }"""


def drop_paths(page: Any, target: str, *paths: Path) -> None:
    """Drops files and folders of the disk, as a file manager does: the browser itself makes their entries."""
    box = page.locator(target).bounding_box()
    tab = page.context.new_cdp_session(page)
    where = {"x": box["x"] + box["width"] / 2, "y": box["y"] + min(60, box["height"] / 2)}
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        tab.send("Input.dispatchDragEvent", {"type": kind, **where, "data": data})
    tab.detach()


def test_a_folder_is_dropped_and_its_pictures_ordered(site: Any, open_page: Any, tmp_path: Path) -> None:
    (deep := tmp_path / "album" / "2024" / "summer").mkdir(parents=True)
    for number in range(30):
        folder = deep if number % 2 else tmp_path / "album"
        (folder / f"p{29 - number:02}.png").write_bytes(png((number % 12, 0, 0), 24 + number))
    (deep / ".hidden.png").write_bytes(png((1, 0, 0), 99))
    (deep / "notes.txt").write_text("no picture")
    (single := tmp_path / "alone.png").write_bytes(png((3, 0, 0), 98))

    session = open_page()
    page = session.page
    session.go("/")
    page.evaluate(WATCH)
    drop_paths(page, "#main", tmp_path / "album", single)
    page.wait_for_selector("#status:has-text('31 added')")
    assert "1 skipped" in page.locator("#status").inner_text(), "notes.txt; hidden files are not even sent"
    seen = page.evaluate("window.seen")
    assert seen and {most for _, most, _ in seen} == {32} and "Adding 32 pictures" in seen[0][2]
    assert len({value for value, _, _ in seen}) > 1 and max(value for value, _, _ in seen) >= 31, "it moves to the end"
    page.click("#status >> text=Show")
    assert page.locator("#told").inner_text().startswith("43 pictures")

    by_name, by_time = [], []
    for names, order in ((by_name, "name"), (by_time, "newest")):
        for number in (1, 2):
            session.go(f"/?q=a+dog&sort={order}&page={number}")
            assert "the best 192" in page.locator("#told").inner_text()
            names += page.locator("#grid .name").all_inner_texts() if order == "name" else session.shown()
        assert page.locator("a[rel=next]").count() == 0
    found = site.run.search("a dog", k=192)
    assert len(by_name) == len(found.hits) and by_name == sorted(by_name, key=str.casefold)
    keys = site.run.retriever.catalog.keys_of([hit.image_id for hit in found.hits]).tolist()
    assert list(map(int, by_time)) == sorted(keys, reverse=True)


def test_a_picture_of_the_data_set_is_removed_and_brought_back(site: Any, open_page: Any) -> None:
    """All that is known of it comes back: words, metadata, symbols, and its file of the data set."""
    session = open_page()
    page = session.page
    first = site.run.search("a dog", k=200).hits
    one = next(hit for hit in first if not Path(hit.uri).is_absolute())
    key = str(site.run.retriever.catalog.keys_of([one.image_id])[0])

    def facts(name: str) -> Any:
        known = page.evaluate("name => fetch(`/v1/images/${name}`).then(a => a.json())", name)
        return {field: known[field] for field in ("image_id", "uri", "metadata", "split", "captions", "identifiers")}

    session.go("/?q=a+dog")
    before, shown = facts(key), session.shown()
    assert before["captions"] and before["split"] and before["identifiers"] and key in shown
    page.click(f"#grid a[data-id='{key}']")
    page.click("dialog >> text=Delete")
    page.wait_for_selector("#status:has-text('Undo')")
    assert key not in session.shown() and len(session.shown()) == len(shown) - 1
    assert one.image_id not in {hit.image_id for hit in site.run.search("a dog", k=200).hits}, "no search finds it"

    page.click("#status >> text=Undo")
    page.wait_for_selector("#status:has-text('It is back')")
    back = session.shown()
    new = back[shown.index(key)]
    assert len(back) == len(shown) and facts(new) == before, "at its place, with all that was known"
    again = site.run.search("a dog", k=200).hits
    assert sorted((hit.image_id, round(hit.score, 3)) for hit in again) == sorted(
        (hit.image_id, round(hit.score, 3)) for hit in first
    )
    page.reload()
    page.click(f"#grid a[data-id='{new}']")
    page.wait_for_selector("dialog .picture img")
    assert page.locator("dialog .picture img").evaluate("one => one.decode().then(() => one.naturalWidth)") > 0
    page.set_viewport_size({"width": 1280, "height": 560})
    outside = """() => { const [frame, image] = [".picture", ".picture img"].map(one =>
        document.querySelector("dialog " + one).getBoundingClientRect());
        return Math.max(image.bottom - frame.bottom, image.right - frame.right); }"""
    assert page.evaluate(outside) <= 0.5, "nothing of it is cut off"
    assert page.evaluate(f"fetch('/v1/images/{new}/file').then(a => a.status)") == 200
