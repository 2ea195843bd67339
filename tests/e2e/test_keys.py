"""What a search does is in no key of a training: another way of searching finds every stage made."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from genret.api import Silent
from genret.plugin.loading import load_plugins
from genret.recipe.load import load_recipe
from genret.recipe.schema import SearchOptions
from genret.settings import Settings
from genret.train.pipeline import Pipeline
from genret.train.stages import run_stages
from tests.e2e import dice

STAGES = {"towers", "encoder", "identifier", "targets", "generator", "retriever"}
OTHERWISE: dict[str, object] = {
    "num_beams": 11, "score": "trie", "guidance": 3.0, "self_guidance": 3.0, "length_weight": 0.3, "batch_size": 5,
}  # fmt: skip
"""Each option, other than the recipe has it."""


@pytest.fixture(scope="module")
def keys(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`keys(overrides)` → the key of every stage of a recipe that has all stages there are."""
    root = Path(tmp_path_factory.mktemp("keys"))
    settings = Settings(home=root / "home", device="cpu", num_threads=1)
    registries = load_plugins([dice.__file__], settings).registries
    finetune = "encoder.finetune={epochs: 1, batch_size: 8, last_layers: 1, bf16: false}"
    everything = ["retriever=learner", finetune, "train.epochs=1", "train.dev_beams=10", "encoder.views=1"]
    everything += [f"backbone.encoder={tiny.text}", "backbone.code_head=8"]

    def keys(*overrides: str) -> dict[str, str]:
        run = root / f"run {overrides}"
        run.mkdir(exist_ok=True)
        recipe = load_recipe([tiny.recipe], [*everything, *overrides], registries)
        assert not overrides or recipe != load_recipe([tiny.recipe], everything, registries), "another recipe"
        pipeline = Pipeline(recipe, run, registries, settings, Silent())  # type: ignore[arg-type]
        made: dict[str, str] = {}
        stage = pipeline.store.stage

        def noted(*words: Any) -> Any:
            artifact = stage(*words)
            made[artifact.name] = artifact.key
            return artifact

        pipeline.store.stage = noted  # type: ignore[method-assign]
        run_stages(pipeline)
        shutil.rmtree(run)
        return made

    return keys


@pytest.fixture(scope="module")
def trained(keys: Any) -> dict[str, str]:
    found: dict[str, str] = keys()
    assert set(found) == STAGES
    return found


def test_every_option_is_tried() -> None:
    assert set(OTHERWISE) == set(SearchOptions.model_fields), "give the new option another value than its own"


@pytest.mark.parametrize("option", SearchOptions.model_fields)
def test_no_option_of_a_search_is_in_a_key_of_the_training(keys: Any, trained: dict[str, str], option: str) -> None:
    assert keys(f"search.{option}={OTHERWISE[option]}") == trained


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("train.dev_beams=11", {"generator"}),
        ("rerank=dense", set()),
        ("identifier.codebook_size=5", {"identifier", "targets", "generator"}),
        ("train.target_noise=0.3", {"targets", "generator"}),
    ],
)
def test_what_a_stage_reads_is_in_its_key(keys: Any, trained: dict[str, str], override: str, changed: set[str]) -> None:
    found = keys(override)
    assert {name for name in STAGES if found[name] != trained[name]} == changed
