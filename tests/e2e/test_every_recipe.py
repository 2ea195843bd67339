"""Every recipe of the embedded default, reduced, through the real command line: train, evaluate, index, search.

One home for all, so that pictures are encoded once, as they are for people who compare recipes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from genret.cli import build
from genret.cli.state import State
from genret.components.retrievers.generative import GenerativeRetriever
from genret.components.retrievers.spelling import strip_padding
from genret.plugin.loading import load_plugins
from genret.recipe.plain_yaml import parse
from genret.run import Run
from genret.settings import Settings
from tests.e2e import golden

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"blip-rerank.yaml", "photos.yaml"}
"""Need weights of a hub: test_paradigms.py and test_photos.py run them with small random models."""
RECIPES = sorted(path.name for path in ROOT.glob("recipes/*.yaml") if path.name not in ELSEWHERE)
SMALL = {
    "dataset.limit": 60,
    "encoder.views": 1,
    "encoder.image.image_size": 64,
    "encoder.image.stages": 1,
    "encoder.train.epochs": 2,
    "train.seed": 1,
}
SMALL_GENERATOR = {
    "train.epochs": 2,
    "train.rank_from": 1,
    "train.rank_every": 1,
    "search.num_beams": 10,
    "train.dev_beams": 10,
}
SMALL_BACKBONE = {"backbone.vocab_size": 300}
SMALL_RQ = {"identifier.codebook_size": 8, "identifier.num_levels": 3, "identifier.train.epochs": 1}

pytestmark = pytest.mark.skipif(find_spec("genret_starter") is None, reason="plugins/genret-starter is not installed")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def settings_of(home: Path) -> Settings:
    return Settings(home=home, device="cpu", num_threads=1)


def genret(home: Path, *argv: object) -> str:
    """The program, in this process; its standard output."""
    threads = torch.get_num_threads()
    settings = settings_of(home)
    result = CliRunner().invoke(
        build(State(settings, load_plugins((), settings))), [str(word) for word in argv], catch_exceptions=False
    )
    torch.set_num_threads(threads)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def reduced(name: str) -> list[str]:
    plain = parse((ROOT / "recipes" / name).read_text(encoding="utf-8")).value
    words: dict[str, Any] = dict(SMALL)
    if plain.get("retriever", "generative") == "generative":
        words |= SMALL_GENERATOR | SMALL_BACKBONE
        words |= SMALL_RQ if "codebook_size" in plain["identifier"] else {}
    return [part for key, value in words.items() for part in ("--set", f"{key}={value}")]


@pytest.mark.parametrize("name", RECIPES)
def test_recipe(name: str, home: Path, tmp_path: Path) -> None:
    run, recipe = tmp_path / "run", ROOT / "recipes" / name
    if name == "avg.yaml":  # encoded in one batch with its keywords, names would differ in the last bits for the others
        home = tmp_path / "home"
    found = json.loads(genret(home, "train", recipe, *reduced(name), "--run", run, "--json"))["evaluation"]
    again = json.loads(genret(home, "evaluate", "--run", run, "--json"))
    assert {key: again[key] for key in ("recall", "two_tower", "ledger")} == {
        key: found[key] for key in ("recall", "two_tower", "ledger")
    }
    assert again["protocol"] == parse(recipe.read_text(encoding="utf-8")).value["protocol"]
    assert 0 <= again["recall"]["10"] <= 100
    if again["num_beams"] is not None:
        assert_every_image_is_reached(run, home)

    answer = json.loads(genret(home, "search", "red heart", "--run", run, "-k", 3, "--json"))
    golden.check(name.removesuffix(".yaml"), run, again, answer)
    (hit, *_) = answer["hits"]
    assert hit["rank"] == 1 and (hit["identifier"] is None) == (again["num_beams"] is None)
    Image.new("RGB", (40, 40), "orange").save(tmp_path / "mine.png")
    if name == "grace-atomic.yaml":  # no new image has an identifier, and the command says so
        with pytest.raises(AssertionError, match="has no atomic identifier"):
            genret(home, "index", tmp_path / "mine.png", "--run", run, "--json")
        return
    assert json.loads(genret(home, "index", tmp_path / "mine.png", "--run", run, "--json"))["added"] == 1
    hits = json.loads(genret(home, "search", "orange", "--run", run, "-k", 61, "--json"))["hits"]
    assert str(tmp_path / "mine.png") in {hit["uri"] for hit in hits}, "a search for everything finds the new one"


def assert_every_image_is_reached(run: Path, home: Path) -> None:
    """image → identifiers → tokens → trie → image, for all searchable images and all of their identifiers."""
    settings = settings_of(home)
    retriever = Run(run, load_plugins((), settings).registries, settings).retriever
    assert isinstance(retriever, GenerativeRetriever)
    with retriever.opened() as (view, index):
        rows, keys = view.read_identifiers(searchable=True), view.searchable_keys()
    assert index is not None
    spelt = retriever.tokenized(rows)
    tokens = index.trie.tokens_of(torch.arange(index.trie.num_leaves, device=index.trie.device)).tolist()
    leaves = {strip_padding(torch.tensor(row)): leaf for leaf, row in enumerate(tokens)}
    assert len(leaves) == index.trie.num_leaves, "no two leaves are spelt alike"
    reached: dict[int, set[int]] = {}
    for owner, row in zip(rows.image_keys.tolist(), spelt, strict=True):
        reached.setdefault(leaves[strip_padding(row)], set()).add(owner)
    found = {leaf: set(index.leaf_images.images_of(np.array([leaf])).tolist()) for leaf in leaves.values()}
    assert found == reached, "the leaf of an identifier leads to its images and to no others"
    assert set().union(*reached.values()) == set(keys.tolist())


def test_as_a_program(home: Path, tmp_path: Path) -> None:
    """The same in a process of its own."""
    name, run = "grace-structured.yaml", tmp_path / "run"
    argv = ["train", str(ROOT / "recipes" / name), *reduced(name), "--run", str(run)]
    lent = {"GENRET_HOME": str(home), "GENRET_DEVICE": "cpu", "GENRET_NUM_THREADS": "1"}

    def program(*words: str) -> subprocess.CompletedProcess[str]:
        import os

        command = [sys.executable, "-m", "genret", *words]
        return subprocess.run(command, env=os.environ | lent, capture_output=True, text=True, timeout=600)

    trained = program(*argv)
    assert trained.returncode == 0, trained.stderr
    answer = program("search", "red heart", "--run", str(run), "--json")
    assert answer.returncode == 0 and len(json.loads(answer.stdout)["hits"]) == 10
    wrong = program("train", str(ROOT / "recipes" / name), "--set", "identifier.braching=3")
    assert wrong.returncode == 2 and "branching" in wrong.stderr and "Traceback" not in wrong.stderr


def test_swapping_the_backbone_reuses_all_before_it(home: Path, tmp_path: Path) -> None:
    settings = settings_of(home)

    def log(*words: str) -> str:
        argv = ["train", str(ROOT / "recipes" / "avg.yaml"), *reduced("avg.yaml"), *words]
        result = CliRunner().invoke(build(State(settings, load_plugins((), settings))), argv, catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
        return "\n" + result.stderr

    log("--run", str(tmp_path / "first"))
    swapped = log(
        "--set", "backbone={type: t5, d_model: 32, num_layers: 1, vocab_size: 300}", "--run", str(tmp_path / "b")
    )
    for stage, said in {"encoder": "reused", "identifier": "reused", "targets": "reused", "generator": "done"}.items():
        assert f"\n{stage}: {said}" in swapped
    changed = log("--set", "encoder.train.lr=0.0007", "--run", str(tmp_path / "c"))
    for stage in ("encoder", "identifier", "targets", "generator"):
        assert f"\n{stage}: done" in changed
