"""How long a browser waits for the pictures of a search: `python -m bench.grid [--run avg-1]`.

A headless Chromium opens the page of twenty searches, each twice after a round that warms up. Printed are medians of
milliseconds since the page was asked for, and their ratio to the search's own time, which the page says. The browser
runs on the machine of the server: both want its cores at the same time. `--apart` gives each one core of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import time
from urllib.parse import urlencode

from playwright.sync_api import sync_playwright

from bench.serve import served

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUERIES = (
    "red heart", "happy dog", "blue car", "pancakes", "tree", "sad face", "flag of japan", "birthday cake", "ghost",
    "rocket", "cat with heart eyes", "snow", "umbrella in rain", "guitar", "pizza", "clown", "robot", "moon",
    "lightning", "waving hand",
)  # fmt: skip
WATCH = """new MutationObserver((_, observer) => {
    if (document.querySelectorAll("#grid a").length < 24) return;
    observer.disconnect(); window.parsed = performance.now();
    requestAnimationFrame(() => { const after = new MessageChannel();
        after.port1.onmessage = () => { window.painted = performance.now(); }; after.port2.postMessage(0); });
}).observe(document, {subtree: true, childList: true});"""
FIGURES = """() => new Promise(done => { const look = () => {
    if (!window.painted) { setTimeout(look, 20); return; }
    const page = performance.getEntriesByType("navigation")[0];
    done({"the search itself": +document.querySelector("#told").textContent.match(/(\\d+) ms/)[1],
        "first byte": page.responseStart, "last byte": page.responseEnd, "grid read": window.parsed,
        "grid painted": window.painted}); }; look(); })"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--run", default="avg-1")
    options.add_argument("--apart", action="store_true", help="the server on one core, the browser on another")
    given = options.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if given.apart:
        os.sched_setaffinity(0, {cores[0]})  # the server inherits it
    rows = []
    with served(given.run) as server:
        if given.apart:
            os.sched_setaffinity(0, {cores[1]})
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.add_init_script(WATCH)
            for turn in range(3):
                for query in QUERIES:
                    page.goto(f"http://127.0.0.1:{server.port}/?{urlencode({'q': query})}")
                    figures = page.evaluate(FIGURES)
                    rows += [figures] if turn else []
                    time.sleep(0.1)
            browser.close()
    search = statistics.median(row["the search itself"] for row in rows)
    for name in rows[0]:
        value = statistics.median(row[name] for row in rows)
        print(f"{name:18} {value:6.1f} ms {value / search:5.2f} x")


if __name__ == "__main__":
    main()
