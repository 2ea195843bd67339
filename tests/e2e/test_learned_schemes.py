"""Schemes that are fitted to vectors, and collisions, through the program: trained, evaluated, searched, added to."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

TEST_IDS = {f"{number:02}.png" for number in range(1, 41, 5)}
SCHEMES = {
    "structured": ("identifier={type: structured, branching: 3, leaf_size: 4}",),
    "residual-kmeans": (
        "identifier={type: residual-kmeans, codebook_size: 3, num_levels: 2, collisions: extra-symbol}",
        "loss.distill.weight=1",
    ),
    "rq": (  # searched pictures, which have no captions, are fitted as well
        "identifier={type: rq, codebook_size: 8, num_levels: 2, collisions: balanced, train: {epochs: 2}}",
        "protocol=transductive-index",
        "loss.align=null",
        "loss.align-contrastive.weight=1",
        "loss.diversity.weight=0.1",
    ),
}


@pytest.fixture(scope="module", params=SCHEMES)
def trained(request, tiny, tmp_path_factory) -> tuple[str, Path, dict[str, Any]]:
    run = tmp_path_factory.mktemp(request.param) / "run"
    settings = [word for setting in SCHEMES[request.param] for word in ("--set", setting)]
    answer = tiny.genret("train", tiny.recipe, *settings, "--set", "train.epochs=1", "--run", run, "--json")
    return request.param, run, answer.document["evaluation"]


def identifiers(tiny, run: Path) -> dict[str, tuple[str, ...]]:
    hits = tiny.genret("search", "a red cross", "-k", 50, "--run", run, "--json").document["hits"]
    return {hit["image_id"]: tuple(hit["identifier"]) for hit in hits}


def test_every_picture_has_an_identifier_of_its_own_and_is_accounted_for(tiny, trained):
    scheme, run, found = trained
    assert found["identifier"]["unique_rate"] == 1 and found["recall"]["10"] == 100
    ledger = {row["stage"]: row["queries"] for row in found["ledger"]}
    levels = sum(stage.startswith("level") for stage in ledger)
    assert levels == len(found["identifier"]["perplexity"]) and ledger["collision"] == 0
    assert found["ceiling"] is not None and len(identifiers(tiny, run)) == len(TEST_IDS)
    assert {"residual-kmeans": levels == 3, "rq": levels == 2}.get(scheme, levels >= 2)


def test_the_same_picture_once_more_gets_another_identifier(tiny, trained, tmp_path):
    scheme, trained_run, _ = trained
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    before = identifiers(tiny, run)
    (tmp_path / "mine").mkdir()
    for name in ("a", "b"):
        (tmp_path / "mine" / f"{name}.png").write_bytes((tiny.data / "01.png").read_bytes())
        answer = tiny.genret("index", tmp_path / "mine", "--run", run, "--json").document
        assert answer["added"] == 1
    after = identifiers(tiny, run)
    mine = {str(tmp_path / "mine" / f"{name}.png") for name in ("a", "b")}
    assert set(after) == TEST_IDS | mine and len(set(after.values())) == len(after)
    assert {image: after[image] for image in TEST_IDS} == before
    if scheme == "residual-kmeans":  # as like as can be: all but the number is the same
        assert len({after[image][:-1] for image in (*mine, "01.png")}) == 1
