"""`genret demo`: the ordinary training, then questions whose answers are held against the run's own figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import genret
from genret.guide import demo
from genret.recipe import plain_yaml

RECIPES = Path(__file__).parents[2] / "recipes"


def test_the_demo_is_an_ordinary_run_that_is_asked(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the tiny data in place of emoji: all stages are there already."""
    monkeypatch.setattr(demo, "RECIPE", tiny.recipe.rename(tiny.recipe.with_name("demo.yaml")))
    try:
        document = tiny.genret("demo", "--json").document
        shown = tiny.genret("demo")
    finally:
        demo.RECIPE.rename(tiny.recipe)
    run = Path(document["run"])
    assert run == tiny.home / "runs" / "demo-1" and document["evaluation"]["num_queries"] == 16
    for variable, value in (("HOME", tiny.home), ("DEVICE", "cpu"), ("NUM_THREADS", 1)):
        monkeypatch.setenv(f"GENRET_{variable}", str(value))
    answers = document["asked"]
    assert len({answer["query"] for answer in answers}) == demo.ASKED
    with genret.load(run) as opened:
        for answer in answers:
            found = [hit.image_id for hit in opened.search(answer["query"], k=10).hits]
            assert answer["found"] == found[: demo.SHOWN]
            assert answer["place"] == (found.index(answer["right"]) + 1 if answer["right"] in found else None)
        ranks = sorted(opened.ranks("test", "two-tower").ranks.tolist())
    places = [answer["two_tower_place"] for answer in answers]
    assert all(places.count(place) <= ranks.count(place) for place in places), "those of the evaluation"
    for answer in answers:
        at = answer["two_tower_place"]
        assert (answer["right"] in answer["two_tower"]) == (at <= demo.SHOWN)
        assert at > demo.SHOWN or answer["two_tower"][at - 1] == answer["right"]
    assert shown.code == 0 and "demo-2 was trained and measured" in shown.out
    assert all(answer["query"].split()[-1] in shown.out for answer in answers)
    assert f"{document['evaluation']['two_tower']['5']:.0f} %" in shown.out and "Where R@10 goes" not in shown.out
    assert "generator: reused" in shown.err and "leakage" not in shown.err.replace("leakage: done", "")


def test_its_recipe_is_the_embedded_defaults_made_smaller() -> None:
    """The same components in every slot, and no option that recipes/avg.yaml does not name, too."""
    small, whole = (
        plain_yaml.parse(file.read_text(encoding="utf-8")).value for file in (demo.RECIPE, RECIPES / "avg.yaml")
    )
    for slot in ("identifier", "backbone", "encoder"):
        assert small[slot]["type"] == whole[slot]["type"] and small[slot].keys() <= whole[slot].keys()
    assert (
        small["encoder"]["image"] == whole["encoder"]["image"] and small["encoder"]["text"] == whole["encoder"]["text"]
    )
    assert small["dataset"]["type"] == whole["dataset"] and small["loss"].keys() <= whole["loss"].keys()
    assert small["train"].keys() <= whole["train"].keys() and small["protocol"] == whole["protocol"]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("genret_starter") is None, reason="needs plugins/genret-starter")
def test_the_demo_itself(tmp_path: Path) -> None:
    """As a user types it: minutes at most, much better than chance, and not better than it is."""
    start = time.monotonic()
    environment = os.environ | {"GENRET_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "genret", "demo", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1200, check=True)
    document = json.loads(done.stdout)
    evaluation = document["evaluation"]
    assert evaluation["num_images"] == 400 and evaluation["recall"]["10"] > 10 * 100 * 10 / 400
    assert len(document["asked"]) == demo.ASKED
    print(f"{time.monotonic() - start:.0f} s, {evaluation['recall']}, {evaluation['two_tower']}")
