"""The paper's tables by one command each, on tiny data: rows, shared runs, the paper's figures, and what is seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genret.train.paper import ELSEWHERE, read_table, tables

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
    before, _, rest = avg.partition("identifier:")
    after = rest[rest.index("backbone:") :]
    for name, identifier in IDENTIFIERS.items():
        (folder / f"{name}.yaml").write_text(f"{before}identifier: {identifier}\n{after}")
    (folder / "two-tower.yaml").write_text(f"retriever: two-tower\n{before}")
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
    (sign,) = [s for s in found["signs"] if (s["row"], s["measure"]) == ("1 beam", "R@1")]
    first, second = (row["figures"]["recall@1"]["mean"] for row in found["rows"][:2])
    assert (sign["against"], sign["paper"]) == ("5 beams", -16.4) and sign["ours"] == pytest.approx(first - second)
    assert sign["verdict"] in ("seen", "seen, but within luck", "not seen", "reversed")
    assert not [s for s in found["signs"] if s["measure"] == "R@10" and s["row"] == "5 beams"], (
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
    assert {(sign["row"], sign["against"]) for sign in found.document["signs"]} >= {
        ("AVG", "IRGen"), ("IRGen", "GRACE structured"), ("GRACE structured", "GRACE string"),
    }  # fmt: skip
    assert "| n/a |" in (tmp_path / "table1.md").read_text()


def test_what_cannot_be_made(tiny: Any, recipes: Path, tmp_path: Path, failed: Callable[..., None]) -> None:
    failed(tiny.genret("reproduce", "table2"), 2, "bench/")
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


def test_the_papers_figures() -> None:
    """Spot checks against arXiv 2407.17274 itself; the shape of all of them."""
    assert tables() == ["table1", "table3", "table4", "table5", "table6", "table7"] and not set(tables()) & set(
        ELSEWHERE
    )
    for name in tables():
        for row in read_table(name).rows:
            for figures in row.paper.values():
                given = [value for value in figures if value is not None]
                assert len(figures) == 3 and given == sorted(given), f"{name}, {row.name}"
    by_name = {row.name: row for row in read_table("Table 1").rows}
    assert by_name["AVG"].paper == {"flickr30k": [62.8, 85.4, 91.2], "coco": [31.3, 58.0, 66.5]}
    assert read_table("5").rows[0].paper["flickr30k"] == [45.7, 73.1, 80.6]
