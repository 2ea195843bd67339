"""The paper's tables by one command each, on tiny data: rows, shared runs, the paper's figures, and what is seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genret.lab.paper.paper import read_table, tables
from genret.lab.speed import speed

IDENTIFIERS = {
    "irgen": "{type: rq, codebook_size: 4, num_levels: 3, hidden_width: 16, train: {epochs: 2, batch_size: 8}}",
    "grace-structured": "{type: structured, branching: 4, leaf_size: 4}",
    "grace-semantic": "semantic",
    "grace-string": "string",
    "grace-numeric": "numeric",
    "grace-atomic": "atomic",
}
QUICK = ("--set", "train.epochs=1", "--set", "train.rank_beams=4")


@pytest.fixture(scope="module")
def recipes(tiny: Any) -> Path:
    """The paper's systems, each as small as can be."""
    folder: Path = tiny.root / "recipes"
    folder.mkdir()
    avg = tiny.recipe.read_text()
    (folder / "avg.yaml").write_text(avg)
    (folder / "scale").mkdir()
    (folder / "scale" / "emoji-names.yaml").write_text("{}\n")  # these are not emoji
    before, _, rest = avg.partition("identifier:")
    after = rest[rest.index("backbone:") :]
    for name, identifier in IDENTIFIERS.items():
        (folder / f"{name}.yaml").write_text(f"{before}identifier: {identifier}\n{after}")
    (folder / "two-tower.yaml").write_text(f"retriever: two-tower\n{before}")
    blip = "rerank: {type: itm, model: nobody/has-this, candidates: 20}\n"
    (folder / "blip-rerank.yaml").write_text(f"retriever: two-tower\n{before}{blip}")
    return folder


def runs(out: Path) -> list[Path]:
    return sorted(path for path in out.iterdir() if path.is_dir())


def test_table7_is_one_training(tiny: Any, recipes: Path, tmp_path: Path) -> None:
    words = ("--recipes", recipes, "--seeds", "2", "--out", tmp_path, *QUICK)
    found = tiny.genret("reproduce", "7", *words, "--json").document
    assert len(runs(tmp_path)) == 2, "one run for each seed"
    assert [row["num_beams"] for row in found["rows"]] == [1, 5, 10, 20, 30, 40, 50]
    assert found["rows"][1]["paper"] == {"1": 60.6, "5": 78.1, "10": None} and found["paper_data"].startswith(
        "Flickr30K"
    )
    assert found["rows"][1]["figures"]["recall@10"] is None and found["rows"][2]["figures"]["recall@10"]["spread"] >= 0
    assert all(row["seeds"] == [0, 1] and row["runs"] == found["rows"][0]["runs"] for row in found["rows"])
    own = found["rows"][2]
    evaluations = [json.loads((Path(run) / "summary.json").read_text())["evaluation"] for run in own["runs"]]
    assert own["figures"]["recall@5"]["mean"] == pytest.approx(sum(e["recall"]["5"] for e in evaluations) / 2)
    assert own["two_tower"]["5"] == pytest.approx(sum(e["two_tower"]["5"] for e in evaluations) / 2)
    (sign,) = [s for s in found["effect_checks"] if (s["row"], s["measure"]) == ("1 beam", "R@1")]
    first, second = (row["figures"]["recall@1"]["mean"] for row in found["rows"][:2])
    assert (sign["against"], sign["paper"]) == ("5 beams", -16.4) and sign["ours"] == pytest.approx(first - second)
    assert sign["verdict"] in ("seen", "seen, but within luck", "not seen", "reversed")
    assert not [s for s in found["effect_checks"] if s["measure"] == "R@10" and s["row"] == "5 beams"], (
        "the paper has no figure"
    )

    # the ablations' first row is the same run
    again = tiny.genret("reproduce", "table3", *words)
    assert again.code == 0 and again.err.count("there already") == 2, again.err
    for said in ("without L_dis", "paper R@1", "56.8", "AVG against without alignment, inductive: R@1 ", "two-tower"):
        assert said in again.out, again.out
        assert said in (tmp_path / "table3.md").read_text()


def test_table1(tiny: Any, recipes: Path, tmp_path: Path) -> None:
    found = tiny.genret("reproduce", "table1", "--recipes", recipes, "--out", tmp_path, *QUICK, "--json")
    assert found.code == 0, found.err
    rows = {(row["name"], row["protocol"]): row for row in found.document["rows"]}
    assert len(rows) == 18 and {protocol for _, protocol in rows} == {"inductive", "transductive-pseudo"}
    atomic = rows["GRACE atomic", "inductive"]
    assert set(atomic["figures"].values()) == {None} and "not applicable" in atomic["remark"]
    assert rows["GRACE atomic", "transductive-pseudo"]["figures"]["recall@10"]["mean"] >= 0
    assert "chance" in rows["GRACE numeric", "inductive"]["remark"]
    dense = rows["two-tower", "inductive"]
    assert {k: dense["figures"][f"recall@{k}"]["mean"] for k in ("1", "5", "10")} == dense["two_tower"]
    assert dense["num_beams"] is None and dense["paper"] is None and "58.4" in dense["note"]
    assert {(sign["row"], sign["against"]) for sign in found.document["effect_checks"]} >= {
        ("AVG", "IRGen"), ("IRGen", "GRACE structured"), ("GRACE structured", "GRACE string"),
    }  # fmt: skip
    assert "| n/a |" in (tmp_path / "table1.md").read_text()


def test_what_cannot_be_made(tiny: Any, recipes: Path, tmp_path: Path, failed: Callable[..., None]) -> None:
    words = ("--recipes", recipes)
    failed(tiny.genret("reproduce", "table3", *words, "--sizes", "10"), 2, "--sizes says nothing for table3")
    failed(tiny.genret("reproduce", "figure4", *words, "--sizes", "0,x"), 2, "--sizes 0,x", "separated by commas")
    failed(tiny.genret("reproduce", "figure5", *words, "--keep", "figures"), 2, "leave --keep figures out")
    failed(tiny.genret("reproduce", "table9"), 2, "unknown table 'table9'", "table7")
    failed(tiny.genret("reproduce", "table1", "--recipes", tmp_path), 2, "holds no avg.yaml", "--recipes DIR")
    nowhere = tmp_path / "nowhere"
    failed(tiny.genret("reproduce", "table7", "--recipes", recipes, "--root", nowhere), 2, str(nowhere), "--root DIR")
    faulty = tiny.genret("reproduce", "table3", "--recipes", recipes, "--set", "train.epoch=1")
    assert faulty.code == 2 and "AVG: --set train.epoch=1: train.epoch: unknown key" in faulty.err


def test_weights_that_are_not_there_are_refused_at_once(
    tiny: Any, recipes: Path, monkeypatch: pytest.MonkeyPatch, failed: Callable[..., None]
) -> None:
    import huggingface_hub

    def offline(*words: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    failed(tiny.genret("reproduce", "table6", "--recipes", recipes), 2, "google-t5/t5-3b", "--set backbone.model=DIR")


def offline(*words: object) -> str:
    raise OSError("no network")


@pytest.fixture
def quick_clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Few rounds; says how many comparisons were timed."""
    import huggingface_hub

    from genret.lab.paper import speed as paper_speed

    timed: list[int] = []

    def alternate(rivals: Any, device: Any) -> Any:
        timed.append(len(rivals))
        return speed.alternate(rivals, device, rounds=3)

    monkeypatch.setattr(paper_speed, "alternate", alternate)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    return timed


def test_table2(tiny: Any, recipes: Path, tmp_path: Path, quick_clock: list[int]) -> None:
    """Quality and speed of one command, what lacks weights is left out by name, and nothing is timed twice."""
    words = ("reproduce", "table2", "--recipes", recipes, "--out", tmp_path, "--sizes", "40", *QUICK)
    found = tiny.genret(*words, "--json").document
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == ["AVG", "two-tower", "AVG + rerank", "two-tower + BLIP", "AVG + BLIP"]
    assert found["batch"] == 1 and found["machine"]["processor"] and "0.3M" in found["paper_speed_on"]
    assert rows["AVG"]["paper_queries_per_s"] == 16.8 and rows["AVG"]["paper"]["1"] == 62.8
    assert rows["two-tower + BLIP"]["speeds"] == [] and rows["two-tower + BLIP"]["runs"] == []
    assert "not run: the weights of nobody/has-this" in rows["two-tower + BLIP"]["remark"]
    assert "Salesforce/blip-itm-base-coco" in rows["AVG + BLIP"]["remark"]
    assert rows["AVG + rerank"]["figures"]["recall@5"]["mean"] >= 0
    for name, made_up in (("AVG", [0, 32]), ("two-tower", [0, 32]), ("AVG + rerank", [0])):
        speeds = rows[name]["speeds"]
        assert [one["made_up"] for one in speeds] == made_up and [one["images"] for one in speeds] == [8, 40][
            : len(speeds)
        ]
        for one in speeds:
            low, high = one["quartiles"]
            assert 0 < low <= one["queries_per_s"] <= high and one["rounds"] == 3
            assert one["ms_per_query"] == pytest.approx(1000 / one["queries_per_s"], rel=1e-2)
    assert quick_clock == [3, 2]

    again = tiny.genret(*words)
    assert again.code == 0 and quick_clock == [3, 2], "measured once"
    for said in ("queries/s, own", "queries/s, 40", "16.8", "0.00007", "not run", "1 query at a time", "made-up"):
        assert said in " ".join(again.out.split()), again.out
    assert "AVG + rerank" in (tmp_path / "table2.md").read_text()
    assert tiny.genret(*words[:-1], "train.rank_beams=3").code == 0
    assert quick_clock == [3, 2, 3, 2], "other runs are others' speeds"


def test_figure4_goes_on_where_it_stopped(
    tiny: Any, recipes: Path, tmp_path: Path, quick_clock: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from xml.etree import ElementTree

    from genret.lab.paper import speed as paper_speed

    words = ("reproduce", "figure4", "--recipes", recipes, "--out", tmp_path, *QUICK, "--sizes")
    assert tiny.genret(*words, "8,30").code == 0 and quick_clock == [2, 2]
    # figures alone were kept by an earlier table: the runs are made searchable again
    for run in runs(tmp_path):
        (run / "catalog.sqlite").unlink()
    found = tiny.genret(*words, "8,30,1000", "--json").document
    assert quick_clock == [2, 2, 2], "only the new size"
    avg, dense = found["systems"]
    assert [one["images"] for one in avg["speeds"]] == [one["images"] for one in dense["speeds"]] == [8, 30, 1000]
    assert (avg["num_beams"], dense["num_beams"]) == (20, None) and avg["paper_queries_per_s"] == 16.8
    assert dense["speeds"][2]["bytes_per_image"] == 64, "16 numbers of four bytes"
    chart = ElementTree.fromstring((tmp_path / "figure4.svg").read_text())
    lines = [node for node in chart.iter() if node.tag.endswith("polyline")]
    assert len(lines) == 2 and all(len(line.attrib["points"].split()) == 3 for line in lines)
    assert "1,000" in (tmp_path / "figure4.md").read_text()

    # where vectors do not fit, that is said and the other is measured
    from genret.components.retrievers import enlarged

    monkeypatch.setattr(enlarged, "free_bytes", lambda: 64 * 2 * 5000)
    found = tiny.genret(*words, "9999", "--json").document
    assert "vectors of 9,999 images take" in found["systems"][1]["speeds"][0]["note"]
    assert found["systems"][0]["speeds"][0]["queries_per_s"] > 0
    assert paper_speed.shown(0.00007) == "0.00007" and paper_speed.shown(12345.6) == "12,346"


def test_figure5(tiny: Any, recipes: Path, tmp_path: Path) -> None:
    """Pairs by a rule; their vokens are the catalog's, and agree in as many as is said."""
    words = ("reproduce", "figure5", "--recipes", recipes, "--out", tmp_path, *QUICK)
    found = tiny.genret(*words, "--json").document
    assert found["num_levels"] == 3 and found["pairs"] and [case["shared"] for case in found["paper"]] == [0, 1, 3, 4]
    for pair in found["pairs"]:
        first, second = (one["vokens"] for one in pair["images"])
        same = [a == b for a, b in zip(first, second, strict=True)]
        assert (same.index(False) if False in same else 3) == pair["shared"]
        assert -1.001 <= pair["similarity"] <= 1.001 and pair["num_pairs"] >= 1
        assert all(one["caption"] and one["image_id"].endswith(".png") for one in pair["images"])
    page = (tmp_path / "figure5.html").read_text()
    assert "data:image/webp" in page and found["pairs"][0]["images"][0]["vokens"][0] in page
    shown = tiny.genret(*words)
    assert "figure5.html" in shown.out and "kayaker" in (tmp_path / "figure5.md").read_text()


def test_the_papers_figures() -> None:
    """Spot checks against arXiv 2407.17274 itself; the shape of all of them."""
    assert tables() == ["figure4", "figure5", *(f"table{n}" for n in range(1, 8))]
    for name in tables():
        assert read_table(name).file_name == name
        for row in read_table(name).rows:
            for figures in row.paper.values():
                given = [value for value in figures if value is not None]
                assert len(figures) == 3 and given == sorted(given), f"{name}, {row.name}"
    by_name = {row.name: row for row in read_table("Table 1").rows}
    assert by_name["AVG"].paper == {"flickr30k": [62.8, 85.4, 91.2], "coco": [31.3, 58.0, 66.5]}
    assert read_table("5").rows[0].paper["flickr30k"] == [45.7, 73.1, 80.6]
    speeds = {row.name: row.paper_speed for row in read_table("table2").rows if row.paper_speed}
    assert speeds == {"AVG": 16.8, "two-tower": 4.32, "two-tower + BLIP": 0.00007}


@pytest.mark.parametrize("kind", ["generative", "two-tower"])
def test_filled_catalogs_are_searched_as_the_runs_own(tiny: Any, recipes: Path, tmp_path: Path, kind: str) -> None:
    """Without made-up images the same images and scores as the retriever's; with them, its own in the same order."""
    from genret.plugin.loading import load_plugins
    from genret.run import Run
    from genret.settings import Settings

    run = tiny.run
    if kind == "two-tower":
        run = tmp_path / "run"
        assert tiny.genret("train", recipes / "two-tower.yaml", "--run", run).code == 0
    settings = Settings(home=tiny.home, device="cpu", num_threads=1)
    retriever = Run(run, load_plugins((), settings).registries, settings).retriever
    queries = ["a red square on grey", "some orange ground with a cross, blue"]
    rows = retriever.catalog.lookup(retriever.catalog.searchable_keys())
    names = {row.key: row.image_id for row in rows}
    keys = list(names)

    def enlarged(size: int) -> Any:
        with retriever.catalog.snapshot() as view:
            return retriever.enlarged(view, size)

    def found(size: int) -> list[list[tuple[str, float]]]:
        answer = enlarged(size).search(queries, 64, k=size)
        if kind == "generative":
            pairs = [
                zip(images, scores, strict=True) for images, scores in zip(answer.images, answer.scores, strict=True)
            ]
            return [[(names[key], score) for key, score in one if key in names] for one in pairs]
        pairs = [zip(r.tolist(), s.tolist(), strict=True) for r, s in zip(answer.rows, answer.scores, strict=True)]
        return [[(names[keys[row]], score) for row, score in one if 0 <= row < len(keys)] for one in pairs]

    own = [[(hit.image_id, hit.score) for hit in one.hits] for one in retriever.search(queries, k=8, num_beams=64)]
    assert all(len(one) == 8 for one in own)
    for size in (8, 50):
        there = found(size)
        assert [[name for name, _ in one] for one in there] == [[name for name, _ in one] for one in own]
        for ours, theirs in zip(there, own, strict=True):
            assert [s for _, s in ours] == pytest.approx([s for _, s in theirs], abs=1e-5)
    assert enlarged(50).num_images == 50 and enlarged(3).num_images == 8
    retriever.catalog.close()


def test_rivals_take_turns() -> None:
    """One warm-up each, then round by round, another one first each time; medians of what was slept."""
    import time

    import torch

    calls: list[tuple[str, int]] = []

    def rival(name: str, seconds: float) -> Callable[[int], None]:
        def run(number: int) -> None:
            calls.append((name, number))
            time.sleep(seconds)

        return run

    fast, slow = speed.alternate([rival("a", 0.002), rival("b", 0.02)], torch.device("cpu"), rounds=4)
    assert calls[:2] == [("a", 0), ("b", 0)] and [name for name, _ in calls[2:]] == list("baabbaab")
    assert [number for _, number in calls] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert 0.002 <= fast.median < 0.02 <= slow.median and slow.low <= slow.median <= slow.high and slow.rounds == 4
    assert slow.as_json(2)["queries_per_s"] == pytest.approx(2 / slow.median, rel=1e-3)
