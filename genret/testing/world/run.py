"""`train_run`: trains runs on the world as `genret train` does, for end-to-end tests of plugins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from genret.api import Evaluator, Silent
from genret.plugin.loading import load_plugins
from genret.plugin.registry import Registries, Registry
from genret.recipe.load import load_recipe
from genret.run import Run
from genret.settings import Settings
from genret.testing.world import pictures
from genret.training import train

NAME = "checked"
"""The evaluator's name in the run."""
RECIPES = {
    "two-tower": "retriever: two-tower\n",
    "generative": """\
identifier: {type: residual-kmeans, codebook_size: 6, num_levels: 2}
backbone: {type: t5, d_model: 16, d_ff: 16, num_layers: 1, num_heads: 2, vocab_size: 128}
loss: {token: {weight: 1}}
train: {epochs: 1, bf16: false}
search: {num_beams: 10}
""",
}


def train_run(folder: Path, recipe: str, *plugins: ModuleType) -> Run:
    """Trains a recipe on the kit's world, in seconds and on the CPU, with these plugins and genret's own components.

    `recipe` is YAML that need not name data set and encoder. The run is written to `folder`, which must be new; runs
    beside it share equal stages. Close it, or use it in a `with` block.
    """
    settings = _settings(folder.parent)
    loaded = load_plugins((), settings)
    for plugin in (pictures, *plugins):
        loaded.include(plugin)
    return _trained(folder, recipe, loaded.registries, settings)


@contextmanager
def watched_run(folder: Path, recipe: str, evaluator: type[Evaluator] | None = None) -> Iterator[Run]:
    """A run below `folder` by one of `RECIPES`, without evaluators but the one given."""
    settings = _settings(folder)
    loaded = load_plugins((), settings)
    loaded.include(pictures)
    loaded.registries._of["evaluator"] = Registry("evaluator", Evaluator)
    if evaluator is not None:
        loaded.registries.evaluator.register(NAME, evaluator, "genret.testing")
    name = "plain" if evaluator is None else "watched"
    with _trained(folder / name, RECIPES[recipe], loaded.registries, settings) as run:
        yield run


def _settings(folder: Path) -> Settings:
    return Settings(home=folder / "home", plugins="", device="cpu")


def _trained(folder: Path, recipe: str, registries: Registries, settings: Settings) -> Run:
    folder.mkdir(parents=True)
    world, file = folder.with_name(f"{folder.name}-world.yaml"), folder.with_name(f"{folder.name}.yaml")
    world.write_text("dataset: world\nencoder: world\n", encoding="utf-8")
    file.write_text(recipe, encoding="utf-8")
    train(load_recipe([world, file], [], registries), folder, registries, settings, Silent())
    return Run(folder, registries, settings)
