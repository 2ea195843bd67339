"""Grids of runs and comparisons through the real program: resumed, failing, shared, and told in one table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

K = "identifier.codebook_size"
STEPS = 3
"""Of a quick generator."""
QUICK = ("--set", "train.epochs=1", "--set", "loss.rank=null")


def cells(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def recall_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text())["evaluation"]["recall"]


# ------------------------------------------------------------------------------------------------ ranks and comparison
def test_evaluation_keeps_ranks(tiny: Any, run: Path) -> None:
    evaluations = run / "evaluations"
    there = {path.name for path in evaluations.iterdir()}
    assert there >= {"test.two-tower.safetensors", "test.10-beams.safetensors"}
    ranks = load_file(evaluations / "test.10-beams.safetensors")["ranks"]
    for k, recall in recall_of(run).items():
        assert 100 * np.mean(ranks <= int(k)) == pytest.approx(recall)
    found = tiny.genret("evaluate", "--run", run, "--split", "dev", "--num-beams", "1,5", "--json").document
    ranks = load_file(evaluations / "dev.5-beams.safetensors")["ranks"]
    assert 100 * np.mean(ranks <= 5) == pytest.approx(found["by_num_beams"]["5"]["5"])
    assert (evaluations / "dev.1-beams.safetensors").exists() and not list(evaluations.glob("*.partial"))


@pytest.fixture(scope="module")
def swept(tiny: Any) -> Path:
    """Two codebook sizes, two seeds."""
    out = tiny.root / "swept"
    answer = tiny.genret("sweep", tiny.recipe, *QUICK, "--grid", f"{K}=3,4", "--seeds", "2", "--out", out, "--json")
    assert answer.code == 0, answer.err
    assert answer.document == json.loads((out / "table.json").read_text())
    return out


def test_the_table_is_the_runs_own(swept: Path) -> None:
    rows = json.loads((swept / "table.json").read_text())["rows"]
    assert [row["settings"] for row in rows] == [{K: 3}, {K: 4}] and len(cells(swept)) == 4
    markdown = (swept / "table.md").read_text()
    for row in rows:
        assert (row["n"], row["seeds"], row["num_beams"], row["remark"]) == (2, [0, 1], 10, None)
        summaries = [json.loads((Path(run) / "summary.json").read_text()) for run in row["runs"]]
        for k in ("1", "5", "10"):
            theirs = [summary["evaluation"]["recall"][k] for summary in summaries]
            figure = row["figures"][f"recall@{k}"]
            assert figure["mean"] == pytest.approx(np.mean(theirs))
            assert figure["spread"] == pytest.approx(np.std(theirs, ddof=1))
            assert f" {figure['mean']:.1f} ± {figure['spread']:.1f} " in markdown
            dense = [summary["evaluation"]["two_tower"][k] for summary in summaries]
            assert row["two_tower"][k] == pytest.approx(np.mean(dense))
        assert row["seconds"] == pytest.approx(np.mean([sum(s["seconds"].values()) for s in summaries]), abs=0.1)
        for run, seed in zip(row["runs"], row["seeds"], strict=True):
            assert f"codebook_size-{row['settings'][K]}_s{seed}-" in Path(run).name
            assert f"  seed: {seed}\n" in (Path(run) / "recipe.yaml").read_text()


def test_finished_runs_are_read_and_unfinished_ones_continue(tiny: Any, swept: Path) -> None:
    before = {run: (run / "summary.json").stat().st_mtime_ns for run in cells(swept)}
    again = ("sweep", tiny.recipe, *QUICK, "--grid", f"{K}=3,4,5", "--seeds", "2", "--out", swept)
    table = (swept / "table.json").read_text()
    (cells(swept)[0] / "summary.json").unlink()
    shutil.rmtree(cells(swept)[1] / "evaluations")
    answer = tiny.genret(*again, "--json")
    assert answer.err.count("there already") == 2 and answer.err.count("generator: reused") == 1, answer.err
    assert answer.err.count("generator: done") == 2 and len(cells(swept)) == 6
    kept = [run for run in before if (run / "summary.json").stat().st_mtime_ns == before[run]]
    assert len(kept) == 3, "one was finished anew, one only evaluated"
    for now, before_ in zip(answer.document["rows"], json.loads(table)["rows"], strict=False):
        assert (now["settings"], now["runs"], now["figures"]) == tuple(
            before_[k] for k in ("settings", "runs", "figures")
        )


def test_stages_are_shared_and_widths_are_not_trained(tiny: Any, tmp_path: Path) -> None:
    grid = ("--grid", "search.num_beams=1,5,12", "--grid", "train.lr=3e-3,2e-3")
    answer = tiny.genret("sweep", tiny.recipe, *QUICK, *grid, "--out", tmp_path, "--keep", "figures", "--json")
    assert len(cells(tmp_path)) == 2 and answer.err.count("generator: done") == 2
    assert answer.err.count("identifier: reused") == 2, "of the first run, and there from other tests"
    for run in cells(tmp_path):
        assert {path.name for path in run.iterdir() if not path.name.startswith(".")} == {
            "recipe.yaml", "evaluations", "metrics.jsonl", "summary.json", "quality.json", "environment.json",
            "leakage.json", "confidence.json",
        }  # fmt: skip
    rows = answer.document["rows"]
    assert [row["settings"] for row in rows][:2] == [
        {"search.num_beams": 1, "train.lr": 3e-3}, {"search.num_beams": 1, "train.lr": 2e-3},
    ]  # fmt: skip
    assert [row["num_beams"] for row in rows] == [1, 1, 5, 5, 12, 12]
    assert rows[0]["figures"]["recall@5"] is None and rows[0]["figures"]["recall@1"]["spread"] is None
    assert rows[2]["figures"]["recall@10"] is None and rows[4]["figures"]["recall@10"] is not None
    # the models are gone, and one more width brings them back from the store
    wider = tiny.genret(
        "sweep", tiny.recipe, *QUICK, "--grid", "search.num_beams=1,7", "--out", tmp_path, "--keep", "figures",
        "--set", "train.lr=3e-3", "--json",
    )  # fmt: skip
    assert "generator: done" not in wider.err and len(cells(tmp_path)) == 2
    assert [row["num_beams"] for row in wider.document["rows"]] == [1, 7]
    assert wider.document["rows"][0]["figures"] == rows[0]["figures"]


def test_a_run_that_fails_does_not_end_the_sweep(tiny: Any, tmp_path: Path) -> None:
    """The text tower of the middle one is not there, which only its training can tell."""
    missing = tmp_path / "no-such-weights"
    towers = [f"{{type: sentence, model: {model}, bf16: false}}" for model in (missing, tiny.text)]
    grid = ("--grid", f"encoder.text={','.join(towers)}")
    answer = tiny.genret("sweep", tiny.recipe, *QUICK, *grid, "--out", tmp_path / "out")
    assert answer.code == 1 and str(missing) in answer.err and "Traceback" not in answer.err
    bad, good = json.loads((tmp_path / "out" / "table.json").read_text())["rows"]
    assert bad["n"] == 0 and str(missing) in bad["remark"] and set(bad["figures"].values()) == {None}
    assert good["n"] == 1 and good["figures"]["recall@10"] and good["remark"] is None
    assert "failed: " in (tmp_path / "out" / "table.md").read_text() and "two-tower" in answer.out


def test_all_faults_before_anything_runs(tiny: Any, tmp_path: Path) -> None:
    grid = ("--grid", f"{K}=0,4,many", "--grid", "train.lr=1,-1", "--out", tmp_path / "out")
    answer = tiny.genret("sweep", tiny.recipe, "--set", "train.epoch=1", *grid)
    assert answer.code == 2 and not (tmp_path / "out").exists()
    for said in ("--set train.epoch=1: train.epoch: unknown", f"--grid {K}=0:", f'--grid {K}="many":', "train.lr=-1"):
        assert said in answer.err, answer.err
    assert answer.err.startswith("Error: the recipe has 4 faults"), "each is told once"


def test_compare(tiny: Any, run: Path, swept: Path, tmp_path: Path, failed: Callable[..., None]) -> None:
    small = [path for path in cells(swept) if "codebook_size-3" in path.name]
    found = tiny.genret("compare", run, *small, "--json").document
    assert found["num_queries"] == 16 and [len(one["runs"]) for one in found["runs"]] == [1, 2], "seeds are one"
    first, second = found["runs"]
    assert (first["seeds"], second["seeds"]) == ([0], [0, 1]) and first["identifier"] == "rq"
    for measure in ("recall@1", "recall@5", "recall@10", "mrr", "ndcg@10"):
        ours, theirs = first["figures"][measure], second["figures"][measure]
        assert ours["interval"][0] <= ours["mean"] <= ours["interval"][1]
        (test,) = [test for test in found["tests"] if test["measure"] == measure]
        assert test["difference"] == pytest.approx(theirs["mean"] - ours["mean"])
        assert test["interval"][0] <= test["difference"] <= test["interval"][1] and 0 < test["p"] <= 1
    assert first["figures"]["recall@5"]["mean"] == pytest.approx(recall_of(run)["5"])

    narrow = tiny.genret("compare", run, *small, "--split", "dev", "--num-beams", "3", "--all-pairs", "--json")
    assert narrow.err.count("not evaluated for this yet") == 3
    assert {test["measure"] for test in narrow.document["tests"]} == {"recall@1", "mrr"}, "3 beams say no more"
    shown = " ".join(tiny.genret("compare", run, small[0]).out.split())
    assert "Paired over queries" in shown and "mrr is not compared between searches of different widths" in shown
    failed(tiny.genret("compare", run, run), 2, "named twice")

    other = tiny.copy(tmp_path / "other")
    from genret.evaluate.ranks import write_ranks

    write_ranks(other, "test", ["one query"], [0], ["a", "b"], {"10-beams": np.array([1])})
    failed(tiny.genret("compare", run, other), 1, "not asked the same queries")


def test_stopped_in_the_middle(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the second of three runs trains; the same command makes what is left and nothing else.

    That a training which is killed ends with the same bits is test_resume's affair.
    """
    from genret.kit.checkpoint import Checkpoint

    steps, save = iter(range(1, 1000)), Checkpoint.save_if_due

    def stop_in_second_run(checkpoint: Any) -> None:
        save(checkpoint)
        if checkpoint.folder.name == "generator" and next(steps) == STEPS + 2:
            raise KeyboardInterrupt

    words = ("sweep", tiny.recipe, *QUICK, "--grid", "train.weight_decay=0,0.1,0.2", "--out", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save_if_due", stop_in_second_run)
        first = tiny.genret(*words)
    assert first.code == 130 and first.out == "" and "the same command goes on from here" in first.err, first
    assert "[2/3]" in first.err and "[3/3]" not in first.err and len(cells(tmp_path)) == 2
    second = tiny.genret(*words, "--json")
    assert second.err.count("there already") == 1 and second.err.count("generator: done") == 2
    assert [row["n"] for row in second.document["rows"]] == [1, 1, 1] and len(cells(tmp_path)) == 3


def test_what_cannot_be_compared_is_not_tested(tiny: Any, tmp_path: Path) -> None:
    """Reciprocal ranks of ten beams and of a search that ranks all; the reranker of each run is shown."""
    dense, reranked = tmp_path / "dense", tmp_path / "reranked"
    assert tiny.genret("train", tiny.recipe, "--run", dense, "--set", "retriever=two-tower").code == 0
    answer = tiny.genret("train", tiny.recipe, "--run", reranked, "--set", "rerank={type: dense, candidates: 10}")
    assert answer.code == 0, answer.err
    found = tiny.genret("compare", dense, tiny.run, reranked, "--all-pairs", "--json").document
    assert [one["rerank"] for one in found["runs"]] == [None, None, "dense"]
    of_mrr = [(test["name"], test["against"]) for test in found["tests"] if test["measure"] == "mrr"]
    assert of_mrr == [("reranked", "tiny-1")]
    assert len([test for test in found["tests"] if test["measure"] == "recall@5"]) == 3
    assert "10, rerank dense" in " ".join(tiny.genret("compare", dense, reranked).out.split())


def test_reused_stages_are_not_described_again(tiny: Any, tmp_path: Path) -> None:
    home = tmp_path / "home"
    first, second = (tiny.genret("train", tiny.recipe, "--run", tmp_path / name, home=home) for name in "ab")
    assert first.code == second.code == 0
    for said in ("Quality of 24 identifiers", "R@1/5/10 in %"):
        assert said in first.out + first.err and said not in second.out + second.err
    assert "leakage: " in first.err and "leakage: 1" not in second.err, "they stand beside the figures"
    assert (tmp_path / "b" / "leakage.json").exists() and (tmp_path / "b" / "quality.json").exists()
    assert second.out.count("leakage: ") == first.out.count("leakage: ")
