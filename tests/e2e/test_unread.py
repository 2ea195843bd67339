"""Queries that the model cannot read: said, never sure, and an image of that very name comes first."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from genret.components.retrievers.by_name import folded_name

NAMES = ["🐶", "❤\ufe0f", "Ωμέγα"]


@pytest.fixture(scope="module", params=["generative", "two-tower"])
def run(request: pytest.FixtureRequest, tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unread")
    run = folder / "run"
    if request.param == "generative":
        shutil.copytree(tiny.run, run)
    else:
        answer = tiny.genret("train", tiny.recipe, "--run", run, "--set", "retriever=two-tower")
        assert answer.code == 0, answer.err
    for number, name in enumerate(NAMES):
        tiny.draw(folder / "more" / f"{name}.png", ("red", "green", "blue")[number], "cross", "purple")
    assert tiny.genret("index", folder / "more", "--run", run).code == 0
    return run


def search(tiny: Any, run: Path, query: str, *words: object) -> Any:
    return tiny.genret("search", query, "--run", run, "-k", 5, *words, "--json").document


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("🐶", "🐶"),
        ("🐶\ufe0f", "🐶"),
        ("❤", "❤\ufe0f"),
        ("ωμέγα", "Ωμέγα"),
        (unicodedata.normalize("NFD", "ΩΜΈΓΑ"), "Ωμέγα"),
    ],
)
def test_an_image_of_that_very_name_comes_first(tiny: Any, run: Path, query: str, name: str) -> None:
    found = search(tiny, run, query)
    first, *others = found["hits"]
    assert Path(first["image_id"]).stem == name and first["identifier"] is None
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3, 4, 5]
    assert len({hit["image_id"] for hit in found["hits"]}) == 5 and all(
        first["score"] >= hit["score"] for hit in others
    )
    assert found["confidence"] == 0
    assert "cannot read this query; images of this very name come first" in found["note"]
    said = tiny.genret("search", query, "--run", run)
    assert said.code == 0 and "Note: the model cannot read this query" in said.err and "Note" not in said.out


def test_without_one_the_answer_is_said_to_be_arbitrary(tiny: Any, run: Path) -> None:
    found = search(tiny, run, "🦄")
    assert found["note"] == "the model cannot read this query; what it finds is arbitrary"
    assert found["confidence"] == 0 and len(found["hits"]) == 5
    assert search(tiny, run, "🦄", "--min-confidence", 0.1)["hits"] == []


def test_restrictions_and_thresholds_hold(tiny: Any, run: Path) -> None:
    (named,) = search(tiny, run, "🐶", "--min-confidence", 0.1)["hits"]
    without = search(tiny, run, "🐶", "--not", named["image_id"])
    assert named["image_id"] not in [hit["image_id"] for hit in without["hits"]] and "arbitrary" in without["note"]


def test_what_can_be_read_is_searched_as_ever(tiny: Any, run: Path) -> None:
    for query in ("a red square", "a red 🐶"):
        assert "note" not in search(tiny, run, query)


def test_a_batch_has_notes_of_its_own(tiny: Any, run: Path) -> None:
    answer = tiny.genret("search", "--queries", "-", "--run", run, "-k", 2, stdin="a red square\n🐶\na line\n")
    notes = [json.loads(line).get("note") for line in answer.out.splitlines()]
    assert [bool(note) for note in notes] == [False, True, False]


def test_names_are_compared_as_people_see_them() -> None:
    assert folded_name(" Straße\ufe0f") == folded_name("STRASSE") != folded_name("Strase")
