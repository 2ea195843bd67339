"""Finished runs of the world, made as `genret train` makes them, with an evaluator taking part or without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genret.api import Evaluator, Silent
from genret.plugin.loading import load_plugins
from genret.plugin.registry import Registry
from genret.recipe.load import load_recipe
from genret.run import Run
from genret.settings import Settings
from genret.testing.world.pictures import WorldDataset, WorldEncoder
from genret.training import train

NAME = "checked"
"""What the evaluator is called in the run."""
RECIPES = {
    "two-tower": "retriever: two-tower\ndataset: world\nencoder: world\n",
    "generative": """\
dataset: world
encoder: world
identifier: {type: residual-kmeans, codebook_size: 6, num_levels: 2}
backbone: {type: t5, d_model: 16, d_ff: 16, num_layers: 1, num_heads: 2, vocab_size: 128}
loss: {token: {weight: 1}}
train: {epochs: 1, bf16: false}
search: {num_beams: 10}
""",
}


@contextmanager
def trained_run(folder: Path, recipe: str, evaluator: type[Evaluator] | None = None) -> Iterator[Run]:
    """A run below `folder` by one of `RECIPES`, without evaluators but the one given."""
    settings = Settings(home=folder / "home", plugins="", device="cpu")
    registries = load_plugins((), settings).registries
    registries.sources["the kit"] = "genret.testing"
    registries.dataset.register("world", WorldDataset, "the kit")
    registries.encoder.register("world", WorldEncoder, "the kit")
    registries.evaluator = Registry("evaluator", Evaluator)
    if evaluator is not None:
        registries.evaluator.register(NAME, evaluator, "the plugin")
    (folder / "recipe.yaml").write_text(RECIPES[recipe], encoding="utf-8")
    run = folder / ("plain" if evaluator is None else "watched")
    run.mkdir()
    train(load_recipe([folder / "recipe.yaml"], [], registries), run, registries, settings, Silent())
    with Run(run, registries, settings) as opened:
        yield opened
