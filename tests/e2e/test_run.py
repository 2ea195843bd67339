"""A finished run from Python: what `genret.load` opens answers as the command line does, and reads no model twice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import genret
from genret.api import IndexReport, Restriction, SearchResult
from genret.components.backbones.t5 import T5Backbone
from genret.components.encoders.paired import PairedEncoder
from genret.components.identifiers.rq import RQIdentifier
from genret.errors import GenretError, UsageError
from genret.evaluate.metrics import recalls
from genret.evaluate.ranks import TWO_TOWER, beams

QUERY = "a red square on grey"


@pytest.fixture(autouse=True)
def environment(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("HOME", tiny.home), ("DEVICE", "cpu"), ("NUM_THREADS", 1)):
        monkeypatch.setenv(f"GENRET_{name}", str(value))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each model is read from disk."""
    found: Counter[str] = Counter()
    for kind in (PairedEncoder, RQIdentifier, T5Backbone):

        def load(self: Any, *words: Any, inner: Any = kind.load, name: str = kind.kind, **options: Any) -> Any:
            found[name] += 1
            return inner(self, *words, **options)

        monkeypatch.setattr(kind, "load", load)
    return found


def shown(result: SearchResult) -> list[tuple[str, float]]:
    return [(hit.image_id, hit.score) for hit in result.hits]


# ------------------------------------------------------------------------------------------------ opening
def test_it_opens_by_name_and_by_path(tiny: Any, tmp_path: Path, loads: Counter[str]) -> None:
    for given in ("tiny-1", Path("tiny-1"), tiny.run, str(tiny.run)):
        with genret.load(given) as run:
            assert isinstance(run, genret.Run) and run.folder == tiny.run
            assert run.recipe.identifier is not None and run.recipe.identifier.type == "rq"
            assert run.dataset.test_split == "test" and repr(run) == f"Run({str(tiny.run)!r})"
    assert not loads, "no model is read before one is needed"
    with pytest.raises(UsageError, match="did you mean 'tiny-1'"):
        genret.load("tiny-11")
    (tmp_path / "begun").mkdir()
    with pytest.raises(GenretError, match="not finished"):
        genret.load(tmp_path / "begun")


def test_public_names_are_looked_up_when_they_are_used() -> None:
    program = (
        "import sys, genret; dir(genret), genret.__all__; before = set(sys.modules)\n"
        "assert not before & {'torch', 'numpy', 'genret.run', 'genret.search.catalog'}, before\n"
        "from genret import CatalogRetriever, Evaluator, QueryBatch, Ranked, Run, load\n"
        "from genret import run; assert run.Run is Run\n"
        "from genret.share import load as shared; assert shared.load is load  # of folders, names, and the hub\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert {"load", "Run", "CatalogRetriever", "Evaluator", "QueryBatch", "Ranked"} <= set(genret.__all__)


# ------------------------------------------------------------------------------------------------ searching
def test_one_query_or_several(tiny: Any, loads: Counter[str]) -> None:
    told = tiny.genret("search", QUERY, "--run", tiny.run, "-k", 5, "--json").document
    loads.clear()
    with genret.load("tiny-1") as run:
        one = run.search(QUERY, k=5)
        assert isinstance(one, SearchResult) and one.query == QUERY and one.num_beams == told["num_beams"]
        assert shown(one) == [(hit["image_id"], pytest.approx(hit["score"], abs=1e-5)) for hit in told["hits"]]
        assert one.confidence == pytest.approx(told["confidence"], abs=1e-5)
        several = run.search([QUERY, "a blue circle on orange"], k=5)
        assert isinstance(several, list) and [result.query for result in several] == [QUERY, "a blue circle on orange"]
        assert shown(several[0]) == [(name, pytest.approx(score, abs=1e-4)) for name, score in shown(one)]
        assert run.search([]) == [] and len(run.search(QUERY).hits) == 8
        assert len(run.search(QUERY, num_beams=3, k=1).hits) == 1
        assert loads == {"encoder": 1, "identifier": 1, "backbone": 1}
    told = tiny.genret("search", QUERY, "--run", tiny.run, "--where", "colour=red", "--json").document
    with genret.load("tiny-1") as run:
        red = run.search(QUERY, where="colour=red")
        assert [hit.image_id for hit in red.hits] == [hit["image_id"] for hit in told["hits"]] != []
        restrict = Restriction(where="colour=red", without=[red.hits[0].image_id])
        assert [hit.image_id for hit in run.search(QUERY, restrict=restrict).hits] == [
            hit.image_id for hit in red.hits[1:]
        ]
        with pytest.raises(UsageError, match="`where` or `restrict`, not both"):
            run.search(QUERY, where="colour=red", restrict=restrict)
        assert run.search(QUERY, min_confidence=1.0).hits == []
        with pytest.raises(UsageError, match="the query is empty"):
            run.search(" ")


def test_images_come_and_go(tiny: Any, run: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    tiny.draw(mine / "one.png", "red", "square", "grey")
    tiny.draw(mine / "two.png", "blue", "circle", "orange")
    (mine / "torn.png").write_bytes(b"no picture")
    with genret.load(run) as opened:
        before = {hit.image_id for hit in opened.search(QUERY, k=50).hits}
        report = opened.index([mine, tmp_path / "absent"])
        assert isinstance(report, IndexReport) and (report.added, report.removed) == (2, 0)
        assert [Path(one.path).name for one in report.skipped] == ["absent", "torn.png"]
        assert report.skipped[0].reason == "it does not exist"
        more = {hit.image_id for hit in opened.search(QUERY, k=50).hits}
        new = more - before
        assert len(new) == 2 and before < more
        again = opened.index(str(mine / "one.png"))  # one path alone
        assert again == IndexReport(0, 0, [], unchanged=1)
        assert {hit.image_id for hit in opened.search(QUERY, k=50).hits} == more
        report = opened.remove([*new, "nobody"])
        assert report.removed == 2 and [one.path for one in report.skipped] == ["nobody"]
        assert {hit.image_id for hit in opened.search(QUERY, k=50).hits} == before
        (tmp_path / "empty").mkdir()
        assert [one.reason for one in opened.index(tmp_path / "empty").skipped] == ["it holds no pictures"]


# ------------------------------------------------------------------------------------------------ figures
def test_figures_are_those_of_the_command_line(tiny: Any, run: Path, tmp_path: Path, loads: Counter[str]) -> None:
    told = tiny.genret("evaluate", "--run", run, "--num-beams", "1,10", "--json").document
    loads.clear()
    with genret.load(run) as opened:
        found = opened.evaluate(num_beams=[1, 10], also={"trec": {"folder": str(tmp_path / "trec")}})
        figures = json.loads(json.dumps(found.as_json()))
        assert figures.pop("trec") == {"folder": str(tmp_path / "trec"), "images": 8} and "trec" not in told
        assert figures == told
        assert {file.name for file in (tmp_path / "trec").iterdir()} == {"run.trec", "qrels.trec", "topics.tsv"}
        assert opened.tables(found), "for people, too"
        assert loads == {"encoder": 1, "identifier": 1, "backbone": 1}
        assert opened.figures == json.loads((run / "summary.json").read_text())["evaluation"]
        assert opened.summary["evaluation"] == opened.figures and "generator" in opened.summary["seconds"]
        for way, expected in (
            (beams(1), found.by_num_beams[1]),
            (beams(10), found.recall),
            (TWO_TOWER, found.two_tower),
        ):
            kept = opened.ranks("test", way)
            assert kept is not None
            width = {beams(1): 1, beams(10): 10}.get(way)
            assert recalls(kept.ranks, num_beams=width) == expected, way
        assert opened.ranks("test", beams(77)) is None and opened.ranks("nowhere", TWO_TOWER) is None
        dev = opened.evaluate("dev")
        assert (dev.split, dev.num_images) == ("dev", 8) and opened.ranks("dev", TWO_TOWER) is not None
        with pytest.raises(GenretError, match=r"evaluator 'tre'.*did you mean 'trec'"):
            opened.evaluate(also={"tre": {}})
        with pytest.raises(GenretError, match="split 'nowhere'"):
            opened.evaluate("nowhere")


def test_people_are_told_of_evaluators_that_were_asked_for(tiny: Any, run: Path, tmp_path: Path) -> None:
    answer = tiny.genret("evaluate", "--run", run, "--trec", tmp_path / "trec")
    assert answer.code == 0, answer.err
    assert "16 queries over 8 images" in answer.out and (tmp_path / "trec" / "run.trec").exists()


def test_a_run_that_is_damaged_says_so(run: Path) -> None:
    with genret.load(run) as opened:
        (run / "summary.json").write_text("{")
        with pytest.raises(GenretError, match=r"no finished run: its summary\.json is missing or damaged"):
            _ = opened.figures
        (run / "recipe.yaml").unlink()
        with pytest.raises(GenretError, match=r"no run directory: it has no recipe\.yaml"):
            _ = opened.recipe


def test_closing_leaves_the_catalog_to_others(tiny: Any) -> None:
    with genret.load("tiny-1") as run:
        assert run.search(QUERY).hits
        catalog = run.retriever.catalog
        closed: list[bool] = []
        inner = catalog.close
        catalog.close = lambda: (closed.append(True), inner())[1]  # type: ignore[method-assign]
    assert closed == [True]
    genret.load("tiny-1").close()  # nothing was opened


# ------------------------------------------------------------------------------------------------ what is in memory
def test_a_training_reads_each_model_once_and_measures_the_one_in_memory(
    tiny: Any, tmp_path: Path, loads: Counter[str]
) -> None:
    """Once as every stage is, made or found; calibration and evaluation ask the same models."""
    for seed in (5, 5):  # the second finds all stages
        loads.clear()
        run = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        answer = tiny.genret("train", tiny.recipe, "--set", f"train.seed={seed}", "--run", run, home=tmp_path / "home")
        assert answer.code == 0, answer.err
        assert loads == {"encoder": 1, "identifier": 1, "backbone": 1}
        assert (run / "confidence.json").exists() and (run / "evaluations").exists()
    assert answer.err.count("reused") == 4, answer.err
