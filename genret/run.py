"""A finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genret.components.retrievers.generative import GenerativeRetriever
from genret.components.retrievers.two_tower import TwoTowerRetriever
from genret.errors import GenretError
from genret.kit.device import device_of
from genret.plugin.provenance import remember_run
from genret.plugin.registry import Registries
from genret.recipe.load import load_recipe
from genret.recipe.parts import components
from genret.recipe.schema import Recipe
from genret.search.catalog import CatalogRetriever
from genret.settings import Settings


def open_retriever(run: Path, registries: Registries, settings: Settings) -> CatalogRetriever:
    """Loads a finished run directory for searching and indexing."""
    recipe = run_recipe(run, registries)
    parts = components(recipe, registries)
    shared: dict[str, Any] = {
        "encoder": parts.encoder,
        "reranker": parts.reranker,
        "options": recipe.search,
        "device": device_of(settings),
    }
    if recipe.retriever == "two-tower":
        return TwoTowerRetriever.load(run, **shared)
    return GenerativeRetriever.load(run, identifier=parts.identifier, backbone=parts.backbone, **shared)


def run_recipe(run: Path, registries: Registries) -> Recipe:
    """The resolved recipe that a run directory was made by."""
    path = run / "recipe.yaml"
    if not path.exists():
        raise GenretError(f"{run} is no run directory: it has no recipe.yaml; name one with --run, or train one first")
    remember_run(run, registries)
    return load_recipe([path], [], registries)
