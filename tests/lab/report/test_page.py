"""Whole pages of runs without models: what they say, that they are well formed, and that nobody else speaks in them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from genret.errors import GenretError
from genret.lab.report.page import write_report
from genret.settings import Settings

DENSE = """
retriever: two-tower
dataset: {type: folder, root: pictures}
encoder: {type: open-clip, model: ViT-B-32, pretrained: laion}
"""
HOSTILE = """<script>alert(1)</script><img src=x onerror="alert(2)">' onload='x' {{ 7777 * 7 }} \u202egnp.exe\x07"""


@pytest.fixture
def report(registries: Any, ui: Any, tmp_path: Path, html_tree: Any) -> Any:
    def write(*runs: Path) -> Any:
        out = tmp_path / "page.html"
        found = write_report(runs, out, registries, Settings(home=tmp_path), ui)
        page = out.read_text(encoding="utf-8")
        assert found.bytes == len(page.encode()) and not ui.warnings
        return found, page, html_tree.parse(page)

    return write


def test_figures_are_those_of_the_summary(make_run: Any, report: Any, html_tree: Any) -> None:
    run = make_run("avg-1")
    found, _, tree = report(run)
    evaluation = json.loads((run / "summary.json").read_text())["evaluation"]
    rows = {row[0]: row[1:] for row in html_tree.table(tree, "recalls")}

    def figures(name: str) -> list[float]:
        return [float(cell.split()[0]) for cell in rows[name][:3]]

    assert figures("generated, 20 beams") == list(evaluation["recall"].values()) == [30, 40, 50]
    assert figures("two-tower, same encoder") == [20, 50, 80]
    assert figures("ceiling of the identifiers") == [20, 50, 60]
    assert figures("the images of 20 beams in dense order") == [20, 50, 70]
    assert rows["generated, 5 beams"][2] == "–", "recall@10 of five beams cannot be measured"
    assert float(rows["generated, 20 beams"][3]) == pytest.approx(
        (3 + 1 / 4 + 1 / 8 + 1 / 60 + 1 / 70 + 1 / 80 + 1 / 90 + 1 / 99) / 10, abs=5e-4
    )
    assert found.runs[0]["by_num_beams"]["5"] == {"5": 40.0, "20": 40.0}
    low, high = map(float, re.findall(r"[\d.]+", rows["generated, 20 beams"][2])[1:])
    assert low <= 50 <= high and (low, high) != (50, 50)


def test_the_ledger_sums(make_run: Any, report: Any, html_tree: Any) -> None:
    _, _, tree = report(make_run("avg-1"))
    rows = [row for row in html_tree.table(tree, "error ledger") if len(row) == 4]
    assert [row[0] for row in rows][:3] == ["dense", "quantization", "level 1"]
    left = 0
    for _, queries, points, recall in rows:
        count = int(queries.replace("−", "-").replace("+", ""))
        left = count if not points else left + count
        assert float(recall) == 10 * left, "each row follows from those above it"
        assert not points or float(points.replace("−", "-")) == 10 * count
    assert left == 7
    bars = [one for one in tree.iter("svg") if one.get("class") == "bar"]
    drawn = [(rect.get("class"), float(rect.get("x")), float(rect.get("width"))) for bar in bars for rect in bar]
    assert drawn[0] == ("total", 0, 200) and drawn[1] == ("loss", 150, 50), "a waterfall on a scale of dense recall"
    assert [kind for kind, *_ in drawn] == ["total", "loss", "loss", "loss", "gain", "total", "gain", "total"]


def test_the_summary_says_it_in_words(make_run: Any, report: Any) -> None:
    found, _, _ = report(make_run("avg-1"))
    said = found.runs[0]["summary"]
    for words in (
        "10 pictures of folder pictures were searched by 10 captions", "20 beams wide",
        "first for 30.0 % of the queries and is among the first 10 for 50.0 %", "reaches 62 % of its R@10",
        "a difference of −30.0 points", "quantization (20.0 points)",
    ):  # fmt: skip
        assert words in said, said


@pytest.mark.parametrize("place", ["name", "remark", "key", "concepts", "metrics", "environment"])
def test_nobody_else_speaks_in_the_page(make_run: Any, report: Any, html_tree: Any, place: str) -> None:
    name = HOSTILE.replace("/", "").replace("\x07", "") if place == "name" else "avg-1"
    about: dict[str, Any] = {"remark": {"remark": HOSTILE}, "concepts": {"concepts": HOSTILE}}.get(place, {})
    run = make_run(name, **(about | ({HOSTILE: {HOSTILE: HOSTILE}} if place == "key" else {})))
    if place == "metrics":
        rows = [{"stage": HOSTILE, "epoch": n, "loss": 1.0 + n, HOSTILE: 2.0 * n} for n in range(3)]
        (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n" + "[" * 100_000 + '\n{"cut sho')
    if place == "environment":
        (run / "environment.json").write_text(json.dumps({"processor": HOSTILE, "packages": {HOSTILE: HOSTILE}}))
    _, page, tree = report(run)
    tags = {element.tag for element in tree.iter()}
    assert not tags & {"script", "iframe", "object", "embed", "form", "base", "link"} and "54439" not in html_tree.text(
        tree
    )
    for element in tree.iter():
        assert not [key for key in element.attrib if key.startswith("on") or key == "style"], element.attrib
        assert not element.get("src", "data:image/webp;base64,").partition("data:image/webp;base64,")[0]
        assert element.get("href", "#").startswith("#"), "links lead nowhere else"
    assert "alert(1)" in html_tree.text(tree), "it is shown as what it is"
    assert not re.search("[\u202e\x07]", page)
    policy = next(one.get("content") for one in tree.iter("meta") if one.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-") and "unsafe" not in policy


def test_the_policy_lets_the_style_through(make_run: Any, report: Any) -> None:
    import base64
    import hashlib

    _, page, tree = report(make_run("avg-1"))
    (style,) = re.findall("<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = [one.get("content") for one in tree.iter("meta") if one.get("http-equiv")]
    assert f"'sha256-{digest}'" in policy
    assert "url(" not in style and "@import" not in style, "nothing is loaded"


def test_leaks_and_confidence_stand_where_they_were_looked_for(make_run: Any, report: Any, html_tree: Any) -> None:
    from genret.lab.confidence.calibration import Separation
    from genret.lab.leakage.duplicates import Leak
    from genret.lab.leakage.leakage import Leakage, summary

    leak = Leak(
        kind="same-caption", split="test", image_id="i1", uri="i1.png",
        other_split="train", other_image_id="<b>t7</b>", other_uri="t7.png", caption="a dog",
    )  # fmt: skip
    leakage = summary(Leakage({"train": 9, "test": 10}, None, [leak]), "test")
    thresholds = [{"threshold": 0.5, "precision": 81.5, "recall": 72.0, "rejected": None}]
    bins = [
        {"confidence": 0.2, "answerable": 0.25, "queries": 4.0},
        {"confidence": 0.9, "answerable": 0.8, "queries": 6.0},
    ]
    confidence = Separation(
        split="test",
        num_queries=10,
        num_images=10,
        auroc=0.87,
        auroc_no_answer=0.61,
        ece=0.07,
        thresholds=thresholds,
        bins=bins,
    ).as_json() | {"fitted": {"split": "dev"}}
    _, page, tree = report(make_run("avg-1", leakage=leakage, confidence=confidence))
    said = html_tree.text(tree)
    assert "What the splits have in common" in said and "<b>t7</b>" in said and "In 87 % of all comparisons" in said
    assert html_tree.table(tree, "thresholds of the confidence") == [["0.5", "81.5 %", "72.0 %", "–"]]
    _, page, _ = report(make_run("avg-2"))
    assert "in common</h3>" not in page and "Nothing matches" not in page


def test_a_two_tower_run_says_what_it_has_not(make_run: Any, report: Any, html_tree: Any) -> None:
    found, page, tree = report(make_run("plain", DENSE))
    assert set(found.runs[0]["missing"]) == {"curves", "ledger", "levels", "pairs", "queries", "learning"}
    assert "no beams to widen" in page and "were kept, not its models" in page
    assert [row[0] for row in html_tree.table(tree, "recalls")] == ["searched"], "it is the two-tower search itself"


def test_runs_side_by_side(make_run: Any, report: Any, html_tree: Any) -> None:
    found, _, tree = report(make_run("avg-1"), make_run("plain", DENSE))
    rows = html_tree.table(tree, "figures of all runs")
    assert [row[0] for row in rows] == ["avg-1", "plain"] == [one["name"] for one in found.runs]
    assert rows[0][7:] == ["30.0", "40.0", "50.0", "80.0", "60.0"] and rows[1][7:] == [
        "20.0",
        "50.0",
        "80.0",
        "80.0",
        "–",
    ]
    ledger = {row[0]: row[1:] for row in html_tree.table(tree, "error ledgers of all runs")}
    assert ledger["quantization"] == ["−20.0", "–"] and ledger["final"] == ["70.0", "–"]


def test_without_captions_there_are_no_figures(make_run: Any, report: Any) -> None:
    run = make_run("avg-1")
    (run / "summary.json").write_text('{"seconds": {}, "evaluation": null}')
    _, page, _ = report(run)
    assert "have no captions to search by" in page


def test_damaged_and_unwritable(make_run: Any, report: Any, registries: Any, ui: Any, tmp_path: Path) -> None:
    run = make_run("avg-1")
    (run / "quality.json").write_text("[")
    with pytest.raises(GenretError, match=r"quality\.json is damaged"):
        report(run)
    (run / "quality.json").unlink()
    with pytest.raises(GenretError, match=r"cannot write .* name another file with --out"):
        write_report([run], tmp_path / "no" / "page.html", registries, Settings(home=tmp_path), ui)
