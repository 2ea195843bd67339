"""`genret report` on trained runs: the right pictures, hostile captions, every kind of system, and a browser."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import shutil
import sqlite3
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genret.catalog.store import Catalog
from genret.lab.report.thumbs import MOST_BYTES
from genret.search.thumbnails import Thumbnails

HOSTILE = "<script>document.title='caught'</script><img src=http://example.invalid/x onerror=alert(1)>"

BROKEN = """Promise.all([...document.images].map(one => one.decode().then(() => 0, () => 1)))
.then(found => found.reduce((a, b) => a + b, 0))"""


def load(name: str) -> ModuleType:
    path = Path(__file__).parents[1] / "lab" / "report" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TREE, BROWSER = load("html_tree"), load("browser")


def variant(tiny: Any, name: str, text: str) -> Path:
    """Another recipe on the same data, trained once."""
    run: Path = tiny.home / "runs" / name
    if not run.exists():
        (tiny.root / f"{name}.yaml").write_text(text)
        answer = tiny.genret("train", tiny.root / f"{name}.yaml", "--run", run, "--set", "train.epochs=1")
        assert answer.code == 0, answer.err
    return run


def with_identifier(tiny: Any, identifier: str) -> str:
    before, _, rest = tiny.recipe.read_text().partition("identifier:")
    return f"{before}identifier: {identifier}\n{rest[rest.index('backbone:') :]}"


def picture(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB"), int)


@pytest.fixture
def report(tiny: Any, tmp_path: Path) -> Any:
    def write(*words: object) -> tuple[dict[str, Any], Any]:
        out = tmp_path / "page.html"
        found = tiny.genret("report", *words, "--out", out, "--json").document
        return found, TREE.parse(out.read_text(encoding="utf-8"))

    return write


def test_pictures_are_those_of_the_images(tiny: Any, report: Any) -> None:
    found, tree = report(tiny.run, "--queries", 6)
    (told,) = found["runs"]
    assert 0 < len(told["queries"]) <= 6 and not told["missing"].keys() & {"queries", "pairs", "ledger", "curves"}
    with Catalog.open(tiny.run / "catalog.sqlite") as catalog:
        found_by_search = catalog.lookup(catalog.searchable_keys())
        captions = catalog.captions("test")
        right = dict(zip(captions.texts, (r.image_id for r in catalog.lookup(captions.image_keys)), strict=True))
    small = Thumbnails(tiny.run / "thumbnails")
    meant = {row.image_id: np.asarray(small.open(row.sha256), int) for row in found_by_search}

    def shows(figure: Any, image_id: str) -> None:
        (image,) = figure.iter("img")
        seen = picture(image.get("src"))
        assert seen.shape == meant[image_id].shape
        apart = {other: np.abs(seen - pixels).mean() for other, pixels in meant.items()}
        assert min(apart, key=apart.__getitem__) == image_id and apart[image_id] < 20, apart
        assert len(image.get("src")) < MOST_BYTES * 1.4 and image.get("alt")

    cards = {TREE.text(card.find("h4")): card for card in tree.iter("article") if card.find("h4/q") is not None}
    assert len(cards) == len(told["queries"])
    for query in told["queries"]:
        assert query["right"] == right[query["query"]]
        first, *others = cards[query["query"]].iter("figure")
        shows(first, query["right"])
        assert len(others) == len(query["hits"])
        for figure, hit in zip(others, query["hits"], strict=True):
            shows(figure, hit["image_id"])
            assert ("right" in figure.get("class")) == (hit["image_id"] == query["right"])
    pairs = [card for card in tree.iter("article") if "in common" in TREE.text(card.find("h4"))]
    for card, pair in zip(pairs, told["pairs"], strict=True):
        for figure, image_id in zip(card.iter("figure"), pair["images"], strict=True):
            shows(figure, image_id)


def test_searches_are_those_of_the_evaluation(tiny: Any, report: Any) -> None:
    found, tree = report(tiny.run, "--queries", 50)
    (told,) = found["runs"]
    evaluation = json.loads((tiny.run / "summary.json").read_text())["evaluation"]
    assert told["evaluation"] == evaluation
    rows = {row[0]: row[1:4] for row in TREE.table(tree, "recalls")}
    assert [float(cell.split()[0]) for cell in rows["generated, 10 beams"]] == pytest.approx(
        list(evaluation["recall"].values()), abs=0.051
    )
    for query in told["queries"]:
        answer = tiny.genret("search", query["query"], "--run", tiny.run, "-k", 8, "--num-beams", 10, "--json").document
        hits = [(hit["image_id"], hit["identifier"]) for hit in answer["hits"]]
        assert [(hit["image_id"], hit["identifier"]) for hit in query["hits"]] == hits[: len(query["hits"])]
        places = [number for number, (image_id, _) in enumerate(hits, 1) if image_id == query["right"]]
        assert query["rank"] == (places[0] if places else None)
        gone = [rank is None for rank in query["prefix_ranks"]]
        assert gone == sorted(gone), "what has left the beam does not come back"
        assert (query["lost_at"] is None) == (query["rank"] is not None and query["rank"] <= 10)


def test_every_kind_of_system(tiny: Any, report: Any) -> None:
    dense = variant(tiny, "two-tower", "retriever: two-tower\n" + tiny.recipe.read_text().partition("identifier:")[0])
    words = variant(tiny, "semantic", with_identifier(tiny, "semantic"))
    numbers = variant(tiny, "numeric", with_identifier(tiny, "numeric"))
    found, tree = report(tiny.run, dense, words, numbers, "--queries", 2)
    by_name = {one["name"]: one for one in found["runs"]}
    assert set(by_name["two-tower"]["missing"]) >= {"curves", "ledger", "levels", "pairs"}
    assert {"levels", "pairs"} <= set(by_name["semantic"]["missing"]) and by_name["numeric"]["pairs"]
    for one in by_name.values():
        assert one["queries"] and not one["remarks"], one["name"]
    assert all(hit["identifier"] is None for query in by_name["two-tower"]["queries"] for hit in query["hits"])
    assert all(len(hit["identifier"]) == 1 for query in by_name["semantic"]["queries"] for hit in query["hits"])
    assert [row[0] for row in TREE.table(tree, "figures of all runs")] == ["tiny-1", "two-tower", "semantic", "numeric"]


def test_hostile_captions_and_names_are_only_shown(tiny: Any, run: Path, report: Any, tmp_path: Path) -> None:
    named = tmp_path / "<script>alert(1)<x>"
    shutil.move(run, named)
    with sqlite3.connect(named / "catalog.sqlite") as catalog:
        catalog.execute("UPDATE captions SET text = text || ?", (HOSTILE,))
        catalog.execute("UPDATE images SET image_id = image_id || ?, uri = uri || ?", (HOSTILE, HOSTILE))
    catalog.close()
    assert tiny.genret("evaluate", "--run", named).code == 0
    found, tree = report(named)
    assert found["runs"][0]["queries"]
    assert not [one for one in tree.iter() if one.tag == "script" or any(key.startswith("on") for key in one.attrib)]
    assert all(one.get("src").startswith("data:image/webp;base64,") for one in tree.iter("img"))
    assert TREE.text(tree).count("<script>document.title='caught'</script>") > 5, "shown as what they are"
    if BROWSER.CHROMIUM:
        with BROWSER.Browser(tmp_path / "profile") as browser:
            browser.open(tmp_path / "page.html", 390)
            assert browser.ask("document.title").startswith("genret: ") and not browser.requests()
            assert browser.ask("document.documentElement.scrollWidth") <= 390


def test_what_a_run_has_lost_is_said(tiny: Any, run: Path, report: Any) -> None:
    (run / "generator" / "genret.json").unlink()
    found, _ = report(run)
    assert "could not be searched" in found["runs"][0]["remarks"][0] and found["runs"][0]["pairs"], (
        "the catalog is there"
    )
    shutil.rmtree(run / "generator")
    assert "models were not kept" in report(run)[0]["runs"][0]["remarks"][0]
    for part in ("catalog.sqlite", "identifier", "encoder", "thumbnails"):
        shutil.rmtree(run / part) if (run / part).is_dir() else (run / part).unlink()
    found, tree = report(run)
    assert "no pictures" in found["runs"][0]["remarks"][0] and found["pictures"] == 0
    assert TREE.table(tree, "error ledger") and TREE.table(tree, "recalls")


def test_where_it_goes_and_what_is_refused(tiny: Any, run: Path, tmp_path: Path, failed: Any) -> None:
    answer = tiny.genret("report", run, "--queries", 0)
    assert answer.code == 0 and str(run / "report.html") in answer.out and "0.1 MB" in answer.out
    assert (run / "report.html").exists() and not list(run.glob("*.partial"))
    failed(tiny.genret("report", run, run), 2, "is named twice")
    failed(tiny.genret("report", tmp_path / "nowhere"), 2, "there is no run directory")
    failed(tiny.genret("report", run, "--out", tmp_path), 2, "is a folder")
    failed(tiny.genret("report", run, "--out", tmp_path / "no" / "page.html", "--queries", 0), 1, "--out")


@pytest.mark.skipif(BROWSER.CHROMIUM is None, reason="no Chromium is installed")
def test_in_a_browser(tiny: Any, tmp_path: Path) -> None:
    """It opens without a word on the console, asks for nothing, shows all pictures, and fits a phone."""
    page = tmp_path / "page.html"
    assert tiny.genret("report", tiny.run, "--out", page).code == 0
    with BROWSER.Browser(tmp_path / "profile") as browser:
        colours = []
        for width, dark in ((390, False), (1280, False), (1280, True)):
            browser.open(page, width, dark=dark)
            assert browser.said() == [] and browser.requests() == []
            assert browser.ask("document.documentElement.scrollWidth") <= width
            browser.ask(
                "document.images.length && document.querySelectorAll('img').forEach(i => { i.loading = 'eager' })"
            )
            assert browser.ask("document.images.length") > 10 and browser.ask(BROKEN) == 0
            colours.append(browser.ask("getComputedStyle(document.body).backgroundColor"))
        assert colours[0] == colours[1] != colours[2], "the style is let through, and follows the reader's mode"
