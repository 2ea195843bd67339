"""Pictures come and go without retraining, whoever looks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from PIL import Image

from genret.plugin.loading import load_plugins
from genret.run import Run
from genret.search.thumbnails import Thumbnails
from genret.settings import Settings


@pytest.fixture
def mine(tiny: Any, tmp_path: Path) -> Path:
    """A folder with two pictures that no data set has."""
    tiny.draw(tmp_path / "mine" / "one.png", "red", "cross", "white")
    tiny.draw(tmp_path / "mine" / "deep" / "two.png", "blue", "circle", "white")
    return tmp_path / "mine"


def retriever_of(tiny: Any, run: Path) -> Any:
    settings = Settings(home=tiny.home, device="cpu", num_threads=1)
    return Run(run, load_plugins((), settings).registries, settings).retriever


def found_by(retriever: Any) -> set[str]:
    return {hit.image_id for hit in retriever.search(["a red cross"], k=50)[0].hits}


def report(**counts: Any) -> dict[str, Any]:
    """What `index --json` says."""
    return dict.fromkeys(("added", "removed", "updated", "moved", "unchanged", "missing"), 0) | {"skipped": []} | counts


def ids(folder: Path) -> set[str]:
    return {str(folder / "one.png"), str(folder / "deep" / "two.png")}


def test_added_pictures_are_found_at_once_and_removed_ones_are_gone(tiny, run, mine):
    before = set(tiny.search("--run", run))
    figures = tiny.genret("evaluate", "--run", run, "--json").document
    open_one = retriever_of(tiny, run)
    assert found_by(open_one) == before and len(before) == 8

    assert tiny.genret("index", "--run", run, mine, "--json").document == report(added=2)
    assert set(tiny.search("--run", run)) == before | ids(mine)
    assert found_by(open_one) == before | ids(mine), "a retriever that was open already"
    assert tiny.genret("evaluate", "--run", run, "--json").document == figures, "only the split is measured"

    again = tiny.genret("index", "--run", run, mine, "--json")
    assert again.code == 0 and json.loads(again.out) == report(unchanged=2)

    gone = str(mine / "one.png")
    removed = tiny.genret("index", "--run", run, "--remove", gone, "--remove", "nobody", "--json").document
    assert removed == report(
        removed=1, skipped=[{"path": "nobody", "reason": "there is no image of this id, file or folder"}]
    )
    assert set(tiny.search("--run", run)) == found_by(open_one) == before | ids(mine) - {gone}
    assert tiny.genret("index", "--run", run, mine, "--remove", gone, "--json").code == 0
    assert tiny.genret("evaluate", "--run", run, "--json").document == figures


def test_a_changed_picture_takes_the_place_of_the_old_one(tiny, run, mine):
    tiny.genret("index", "--run", run, mine, "--json")
    before = set(tiny.search("--run", run))
    tiny.draw(mine / "one.png", "green", "line", "grey")
    assert tiny.genret("index", "--run", run, mine, "--json").document == report(updated=1, unchanged=1)
    assert set(tiny.search("--run", run)) == before


def test_the_words_for_people(tiny, run, mine):
    answer = tiny.genret("index", "--run", run, mine)
    assert answer.code == 0 and answer.out.startswith("Added 2 pictures.\nNext: genret search")
    answer = tiny.genret("search", "a red cross", "--run", run, "-k", 50)
    assert answer.code == 0 and str(mine / "one.png") in answer.out
    assert len(answer.out.splitlines()) == 10 and "confidence" not in answer.out


# ------------------------------------------------------------------------------------------------ answers in JSON
def test_search_as_json(tiny):
    found = tiny.genret("search", "a red square", "-k", 3, "--json").document
    assert list(found) == ["query", "hits", "num_beams", "elapsed_ms", "confidence"]
    assert (found["query"], found["num_beams"]) == ("a red square", 10) and found["elapsed_ms"] > 0
    for rank, hit in enumerate(found["hits"], 1):
        assert list(hit) == ["rank", "image_id", "uri", "score", "identifier"]
        assert hit["rank"] == rank and hit["uri"] == str(tiny.data / hit["image_id"]) and hit["score"] < 0
        assert [symbol.partition("_")[0] for symbol in hit["identifier"]] == ["c0", "c1", "c2"]
    assert len(found["hits"]) == 3
    assert tiny.genret("search", "a red square", "-k", 25, "--json").document["num_beams"] == 25, "-k widens the beams"
    assert tiny.genret("search", "a red square", "--num-beams", 4, "-k", 2, "--json").document["num_beams"] == 4


def test_evaluate_as_json(tiny):
    found = tiny.genret("evaluate", "--num-beams", "1,5,10", "--json").document
    promised = {"protocol", "split", "num_queries", "num_images", "num_beams", "recall", "identifier_recall"}
    promised |= {"by_num_beams", "two_tower", "ceiling", "reranked", "ledger", "identifier"}
    assert promised <= set(found)
    assert (found["protocol"], found["split"], found["num_queries"], found["num_images"]) == (
        "inductive",
        "test",
        16,
        8,
    )
    assert list(found["by_num_beams"]) == ["1", "5", "10"] and found["num_beams"] == 10
    assert found["by_num_beams"]["1"]["5"] is None and found["by_num_beams"]["5"]["10"] is None
    assert set(found["identifier"]) == {"unique_rate", "max_bucket", "perplexity"}
    dev = tiny.genret("evaluate", "--split", "dev", "--json").document
    assert (dev["split"], dev["num_images"]) == ("dev", 8) and dev["recall"].keys() == found["recall"].keys()


def test_many_queries_are_answered_in_the_order_asked(tiny, tmp_path):
    asked = [f"a {colour} {shape}" for colour in ("red", "blue") for shape in ("cross", "line", "cross")]
    (tmp_path / "queries.txt").write_text("\n".join(asked) + "\n")
    from_file = tiny.genret("search", "--queries", tmp_path / "queries.txt", "-k", 2)
    from_pipe = tiny.genret("search", "--queries", "-", "-k", 2, stdin="\n".join(asked))
    for answer in (from_file, from_pipe):
        assert answer.code == 0, answer.err
        documents = [json.loads(line) for line in answer.out.splitlines()]
        assert [document["query"] for document in documents] == asked
        for document in documents:
            alone = tiny.genret("search", document["query"], "-k", 2, "--json").document
            assert [hit["image_id"] for hit in document["hits"]] == [hit["image_id"] for hit in alone["hits"]]


def test_where(tiny, run, mine):
    tiny.genret("index", "--run", run, mine, "--json")
    everything = tiny.search("--run", run)
    red = tiny.search("--run", run, "--where", "colour=red")
    assert 0 < len(red) < 8 and set(red) < set(everything)
    assert red == [image for image in everything if image in red], "a filter changes no order"
    assert set(tiny.search("--run", run, "--where", "folder=deep")) == {str(mine / "deep" / "two.png")}
    assert tiny.search("--run", run, "--where", "colour=pink") == []


# ------------------------------------------------------------------------------------------------ places and kinds
def test_a_copied_run_searches_with_an_empty_home(tiny, tmp_path):
    """A run needs nothing of the home that it was trained in, nor its pictures."""
    run = shutil.copytree(tiny.run, tmp_path / "elsewhere")
    assert tiny.search("--run", run, home=tmp_path / "empty") == tiny.search()
    assert not (tmp_path / "empty").exists(), "searching writes nothing there"
    first = tiny.genret("evaluate", "--run", run, "--json", home=tmp_path / "empty").document
    assert first == tiny.genret("evaluate", "--json").document


def test_two_towers(tiny, tmp_path, mine):
    run = tmp_path / "two-tower"
    answer = tiny.genret("train", tiny.recipe, "--set", "retriever=two-tower", "--run", run, "--json")
    trained = answer.document["evaluation"]
    assert "encoder: reused" in answer.err
    assert trained["recall"] == trained["two_tower"] == tiny.genret("evaluate", "--json").document["two_tower"]
    assert (trained["num_beams"], trained["ledger"], trained["by_num_beams"], trained["ceiling"]) == (
        None,
        [],
        {},
        None,
    )
    found = tiny.genret("search", "a red square on grey", "--run", run, "-k", 50, "--json").document
    assert found["num_beams"] is None and len(found["hits"]) == 8
    assert all(hit["identifier"] is None for hit in found["hits"])
    assert tiny.genret("index", "--run", run, mine, "--json").document["added"] == 2
    assert ids(mine) < set(tiny.search("--run", run))
    assert tiny.genret("evaluate", "--run", run, "--json").document == trained


def test_dense_reranking_orders_like_two_towers(tiny, tmp_path):
    """With a beam as wide as the catalog, all images are reranked: the order is that of the dense search."""
    dense, towers = tmp_path / "dense", tmp_path / "towers"
    answer = tiny.genret("train", tiny.recipe, "--set", "rerank=dense", "--run", dense, "--json")
    assert answer.code == 0 and "generator: reused" in answer.err
    assert tiny.genret("train", tiny.recipe, "--set", "retriever=two-tower", "--run", towers, "--json").code == 0
    found = tiny.genret("search", "a red square on grey", "--run", dense, "-k", 50, "--json").document
    assert [hit["image_id"] for hit in found["hits"]] == tiny.search("--run", towers)
    assert found["num_beams"] == 50 and all(hit["identifier"] for hit in found["hits"])
    figures = answer.document["evaluation"]
    assert figures["reranked"] == figures["two_tower"]


@pytest.mark.parametrize("settings", [[], ["rerank=dense"], ["retriever=two-tower"]], ids=str)
def test_an_emptied_catalog_has_no_hits(tiny, tmp_path, settings):
    run = tmp_path / "run"
    words = [word for setting in settings for word in ("--set", setting)]
    assert tiny.genret("train", tiny.recipe, *words, "--run", run, "--json").code == 0
    everything = tiny.search("--run", run)
    removed = tiny.genret(
        "index", "--run", run, *(word for name in everything for word in ("--remove", name)), "--json"
    )
    assert removed.document["removed"] == 8
    assert tiny.search("--run", run) == []
    assert tiny.search("--run", run, "--where", "colour=red") == []
    answer = tiny.genret("search", "a red square", "--run", run)
    assert answer.code == 0 and answer.out == "" and "Nothing found" in answer.err
    assert tiny.genret("index", "--run", run, tiny.data, "--json").document["added"] > 0
    assert tiny.search("--run", run), "filled again, it searches again"


ADD_AT_ONCE = """
import os, sys
import timm, torch, transformers
import genret.run, genret.components.backbones.t5, genret.components.encoders.paired
import genret.components.identifiers.rq
from genret.cli import main

run, *folders = sys.argv[1:]
torch.set_num_threads(1)
children = []
for folder in folders:
    children.append(os.fork())
    if not children[-1]:
        main(["index", "--run", run, folder, "--json"])
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


def test_two_processes_that_add_at_once_lose_nothing(tiny, run, tmp_path):
    """Some pictures are common to both, under other names: their thumbnails are written by both."""
    for name in ("left", "right"):
        for number, (colour, shape) in enumerate((c, s) for c in ("red", "blue", "green") for s in ("cross", "circle")):
            ground = "white" if number % 2 else {"left": "pink", "right": "brown"}[name]
            tiny.draw(tmp_path / name / f"{number}.png", colour, shape, ground)
    before = set(tiny.search("--run", run))
    words = [sys.executable, "-c", ADD_AT_ONCE, run, tmp_path / "left", tmp_path / "right"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert reports == [report(added=6)] * 2
    added = {str(path) for name in ("left", "right") for path in (tmp_path / name).iterdir()}
    assert set(tiny.search("--run", run)) == before | added
    assert not list((run / "thumbnails").rglob("*.partial"))


def test_threads_that_save_the_same_thumbnail_do_not_meet(tmp_path):
    picture = Image.new("RGB", (40, 30), "red")
    for number in range(20):
        store, start = Thumbnails(tmp_path), Barrier(4)

        def save(store: Thumbnails = store, number: int = number, start: Barrier = start) -> None:
            start.wait()
            store.save(f"{number:064}", picture)

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(save) for _ in range(4)]:
                done.result()
        assert store.open(f"{number:064}").size == (40, 30)
    assert not list(tmp_path.rglob("*.partial"))


def encoded(monkeypatch) -> list[int]:
    """How many images each call of the image tower is given."""
    from genret.components.encoders.paired import PairedEncoder

    counts, inner = list[int](), PairedEncoder.image_features
    monkeypatch.setattr(
        PairedEncoder,
        "image_features",
        lambda self, images, view=0: counts.append(len(images)) or inner(self, images, view),
    )
    return counts


def test_a_folder_given_again_is_followed(tiny, run, mine, monkeypatch):
    """Moved, changed and new files are told by content; what is known is not encoded again."""
    tiny.genret("index", "--run", run, mine, "--json")
    found = tiny.genret("search", "a red cross", "--run", run, "-k", 50, "--json").document["hits"]
    named = {hit["image_id"]: hit["identifier"] for hit in found}
    counts = encoded(monkeypatch)
    assert tiny.genret("index", "--run", run, mine, "--json").document == report(unchanged=2) and not counts

    (mine / "elsewhere").mkdir()
    (mine / "one.png").rename(mine / "elsewhere" / "uno.png")
    tiny.draw(mine / "deep" / "two.png", "black", "line", "orange")
    tiny.draw(mine / "three.png", "yellow", "cross", "orange")
    (mine / "twin.png").write_bytes((mine / "three.png").read_bytes())
    assert tiny.genret("index", "--run", run, mine, "--json").document == report(added=2, updated=1, moved=1)
    assert sum(counts) == 3
    after = tiny.genret("search", "a red cross", "--run", run, "-k", 50, "--json").document["hits"]
    moved = {hit["image_id"]: hit["identifier"] for hit in after}
    assert str(mine / "one.png") not in moved
    assert moved[str(mine / "elsewhere" / "uno.png")] == named[str(mine / "one.png")]


def test_files_that_are_gone_are_forgotten_when_asked_for(tiny, run, mine, tmp_path):
    elsewhere = tmp_path / "elsewhere" / "x.png"
    tiny.draw(elsewhere, "red", "cross", "orange")
    before = set(tiny.search("--run", run))
    tiny.genret("index", "--run", run, mine, elsewhere.parent, "--json")
    (mine / "one.png").unlink()
    elsewhere.unlink()
    assert tiny.genret("index", "--run", run, mine, "--json").document == report(unchanged=1, missing=1), (
        "only if asked for"
    )
    assert tiny.genret("index", "--run", run, mine, "--prune", "--json").document == report(unchanged=1, removed=1)
    assert set(tiny.search("--run", run)) == before | {str(mine / "deep" / "two.png"), str(elsewhere)}
    shutil.rmtree(elsewhere.parent)
    answer = tiny.genret("index", "--run", run, elsewhere.parent, "--prune", "--json")
    assert answer.code == 1 and str(elsewhere) in tiny.search("--run", run), "a disk that is not there forgets nothing"
    assert tiny.genret("index", "--run", run, "--prune").code == 2


def test_files_and_folders_are_removed_by_their_paths(tiny, run, mine, tmp_path, monkeypatch):
    before = set(tiny.search("--run", run))

    def again() -> None:
        tiny.genret("index", "--run", run, mine, "--json")

    again()
    assert tiny.genret("index", "--run", run, "--remove", mine, "--json").document == report(removed=2)
    assert set(tiny.search("--run", run)) == before
    again()
    monkeypatch.chdir(mine.parent)
    assert tiny.genret("index", "--run", run, "--remove", f"{mine.name}/one.png", "--json").document["removed"] == 1
    again()
    (tmp_path / "list.txt").write_text(f"{mine / 'one.png'}\n{mine / 'deep'}\n")
    assert (
        tiny.genret("index", "--run", run, "--remove", f"@{tmp_path / 'list.txt'}", "--json").document["removed"] == 2
    )
    assert set(tiny.search("--run", run)) == before


def test_the_words_for_people_who_add_again(tiny, run, mine):
    tiny.genret("index", "--run", run, mine)
    again = tiny.genret("index", "--run", run, mine)
    assert (
        again.code == 0 and again.out == "Nothing new: 2 pictures were there already.\n" and "skipped" not in again.err
    )


def test_a_split_that_has_lost_images_is_not_measured_without_a_word(tiny, run):
    images = sorted(tiny.search("--run", run))
    tiny.genret("index", "--run", run, *(part for image in images[1:] for part in ("--remove", image)))
    measured = tiny.genret("evaluate", "--run", run, "--json")
    assert measured.code == 0 and measured.document["num_images"] == 1
    assert f"split 'test' has only 1 of its {len(images)} images" in " ".join(measured.err.split())
    compared = tiny.genret("compare", run, shutil.copytree(run, run.with_name("again")), "--json").document
    assert "measured by 2 of 16 queries" in compared["runs"][0]["remark"], "what was stored is of the smaller split"

    tiny.genret("index", "--run", run, "--remove", images[0])
    measured = tiny.genret("evaluate", "--run", run)
    assert measured.code == 2
    assert f"split 'test' has none of its {len(images)} images" in " ".join(measured.err.split())
    explained = tiny.genret("explain", "a red cross", "--run", run)
    assert "the catalog has no images to search" in explained.out + explained.err
    assert "the catalog has no images to search" in tiny.genret("search", "a red cross", "--run", run).err
