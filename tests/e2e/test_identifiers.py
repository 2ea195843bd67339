"""Schemes that number or name images, through the program: trained, searched, added to and evaluated."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

TEST_IDS = {f"{number:02}.png" for number in range(1, 41, 5)}
PSEUDO = ("--set", "protocol=transductive-pseudo")


@pytest.fixture(scope="module", params=["numeric", "string", "atomic", "semantic"])
def named(request, tiny, tmp_path_factory) -> tuple[str, Path, dict[str, Any]]:
    """The tiny recipe with one word changed, as GRACE trains it: rq's losses and the teacher fall idle."""
    run = tmp_path_factory.mktemp(request.param) / "run"
    answer = tiny.genret("train", tiny.recipe, "--set", f"identifier={request.param}", *PSEUDO, "--run", run, "--json")
    return request.param, run, answer.document["evaluation"]


def hits(tiny, run: Path, *words: object) -> list[dict[str, Any]]:
    return tiny.genret("search", "a red cross", "--run", run, "--json", *words).document["hits"]


def test_a_search_finds_every_image_by_its_name(tiny, named):
    scheme, run, _ = named
    found = hits(tiny, run, "-k", 50)
    assert {hit["image_id"] for hit in found} == TEST_IDS and len(found) == len(TEST_IDS)
    scores = [hit["score"] for hit in found]
    assert scores == sorted(scores, reverse=True) and scores[0] <= 0
    names = [tuple(hit["identifier"]) for hit in found]
    shapes = {
        "numeric": lambda name: [symbol[:3] for symbol in name] == ["c0_", "c1_", "c2_"],
        "string": lambda name: len(name) == 1 and name[0].isdecimal(),
        "atomic": lambda name: len(name) == 1 and name[0].startswith("c0_"),
        "semantic": lambda name: len(name) == 1 and len(name[0].split()) > 3,
    }
    assert all(shapes[scheme](name) for name in names)
    if scheme != "semantic":
        assert len(set(names)) == len(names), "no two images share a number"
    # fewer beams than images asked for, several identifiers of one image: k images all the same
    few = [hit["image_id"] for hit in hits(tiny, run, "-k", 5, "--num-beams", 1)]
    assert len(set(few)) == 5


def test_evaluation_accounts_for_every_query(tiny, named):
    scheme, run, trained = named
    found = tiny.genret("evaluate", "--run", run, "--num-beams", "1,5,100", "--json").document
    assert found["num_queries"] == 16 and found["remark"] is None and found["ceiling"] is None
    ledger = {row["stage"]: row for row in found["ledger"]}
    levels = sum(stage.startswith("level") for stage in ledger)
    assert {"numeric": levels == 3, "atomic": levels == 1}.get(scheme, levels > 1)
    changes = sum(row["queries"] for row in found["ledger"] if "lost" in row)
    assert ledger["dense"]["queries"] - changes == ledger["final"]["queries"]
    assert ledger["quantization"]["queries"] == 0, "nothing was quantized"
    # more beams than identifiers: every image is found, nothing is pruned
    assert ledger["beam"]["queries"] == 0 and found["recall"]["10"] == 100
    assert found["by_num_beams"]["1"]["1"] == found["recall"]["1"] or scheme != "atomic", "one level: no beam is lost"
    assert trained["num_images"] == len(TEST_IDS)
    if scheme != "semantic":
        assert found["identifier"]["unique_rate"] == 1 and found["identifier_recall"] == found["recall"]


def test_new_pictures_get_a_name_or_a_reason(tiny, named, tmp_path):
    scheme, trained, _ = named
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    before = {hit["image_id"]: hit["identifier"] for hit in hits(tiny, run, "-k", 50)}
    for number, colour in enumerate(("red", "blue")):
        tiny.draw(tmp_path / "mine" / f"{number}.png", colour, "cross")
    mine = [str(tmp_path / "mine" / f"{number}.png") for number in range(2)]
    answer = tiny.genret("index", tmp_path / "mine", "--run", run, "--json")
    if scheme == "atomic":
        assert answer.code == 1 and answer.out == ""
        assert "0.png' has no atomic identifier" in answer.err and "Traceback" not in answer.err
        assert {hit["image_id"] for hit in hits(tiny, run, "-k", 50)} == TEST_IDS
        return
    assert answer.document["added"] == 2
    after = {hit["image_id"]: hit["identifier"] for hit in hits(tiny, run, "-k", 50)}
    assert set(after) == {*TEST_IDS, *mine}
    if scheme != "semantic":  # there, an image may be reached by another of its captions
        assert {image: after[image] for image in TEST_IDS} == before
        assert len(set(map(tuple, after.values()))) == len(after)
    # a second visit adds one picture and changes no number
    tiny.draw(tmp_path / "mine" / "2.png", "green", "cross")
    again = tiny.genret("index", tmp_path / "mine", "--run", run, "--json").document
    assert again["added"] == 1
    last = {hit["image_id"]: hit["identifier"] for hit in hits(tiny, run, "-k", 50)}
    if scheme != "semantic":
        assert {image: last[image] for image in after} == after and len(set(map(tuple, last.values()))) == len(last)


@pytest.mark.parametrize(
    ("scheme", "said"), [("numeric", "chance by construction"), ("atomic", "not applicable"), ("semantic", None)]
)
def test_what_the_inductive_protocol_leaves_of_a_scheme(tiny, tmp_path, scheme, said):
    words = ("--set", f"identifier={scheme}", "--set", "train.epochs=1", "--run", tmp_path / "run", "--json")
    found = tiny.genret("train", tiny.recipe, *words).document["evaluation"]
    assert (found["remark"] or "").startswith(said or "") and (said is None) == (found["remark"] is None)
    assert (found["recall"]["1"] is None) == (scheme == "atomic")
    assert len(hits(tiny, tmp_path / "run", "-k", 3)) == (0 if scheme == "atomic" else 3)
    if scheme == "semantic":  # names come from training captions, never from the searched images' own
        texts = {hit["identifier"][0] for hit in hits(tiny, tmp_path / "run", "-k", 50)}
        trained = {
            line.split(",", 1)[1].rsplit(",", 2)[0].strip('"')
            for line in (tiny.data / "captions.csv").read_text().splitlines()
            if ",train," in line
        }
        assert texts <= trained
