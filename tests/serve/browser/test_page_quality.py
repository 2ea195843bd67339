"""The page's width, weight and accessibility, in a real browser."""

from __future__ import annotations

from typing import Any

import pytest


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


def test_weight_and_what_a_page_asks_for(open_page: Any) -> None:
    """At most 60 kB without pictures, nothing from elsewhere (`open_page` looks), no layout shift by pictures."""
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
        shift = """new Promise(done => { let sum = 0; setTimeout(() => done(sum), 200);
            new PerformanceObserver(list => list.getEntries().forEach(one => sum += one.value))
            .observe({type: "layout-shift", buffered: true}); })"""
        assert page.evaluate(shift) < 0.01, path
