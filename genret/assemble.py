"""The only wiring: recipe and registries → components → a retriever."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers.utils import logging as transformers_logging

from genret.compatibility import idle_losses
from genret.errors import GenretError
from genret.interfaces import Backbone, Component, Dataset, Encoder, Identifier, Loss, Reranker
from genret.provenance import remember_run
from genret.recipe import Recipe, Slot, load_recipe
from genret.registry import Registries
from genret.retrievers.catalog import CatalogRetriever
from genret.retrievers.generative import GenerativeRetriever
from genret.retrievers.two_tower import TwoTowerRetriever
from genret.settings import Settings


class Parts(NamedTuple):
    """A recipe's components, made but not yet fitted or loaded."""

    dataset: Dataset
    encoder: Encoder
    identifier: Identifier | None
    backbone: Backbone | None
    tokenizer_losses: dict[str, Loss]
    generator_losses: dict[str, Loss]
    reranker: Reranker | None


def components(recipe: Recipe, registries: Registries) -> Parts:
    """Makes every component that the recipe names; a loss of weight 0 is left out, and one without effect."""
    transformers_logging.disable_progress_bar()  # its bars know nothing of ours
    idle = idle_losses(recipe, registries)
    losses = {
        name: registries.loss.get(name)(config, resolve_weights=registries.resolve_weights)
        for name, config in recipe.loss.items()
        if config.weight > 0 and name not in idle
    }

    def made(kind: str, slot: Slot | None) -> Any:
        return None if slot is None else _make(registries, kind, slot)

    return Parts(
        made("dataset", recipe.dataset),
        made("encoder", recipe.encoder),
        made("identifier", recipe.identifier),
        made("backbone", recipe.backbone),
        {name: loss for name, loss in losses.items() if loss.stage == "tokenizer"},
        {name: loss for name, loss in losses.items() if loss.stage == "generator"},
        made("reranker", recipe.rerank),
    )


def _make(registries: Registries, kind: str, slot: Slot) -> Component:
    component: Component = registries.of(kind).get(slot.type)(slot.options, resolve_weights=registries.resolve_weights)
    return component


def device_of(settings: Settings) -> torch.device:
    """The device that the settings ask for; `auto` is the GPU where there is one."""
    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    if settings.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(settings.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise GenretError(f"GENRET_DEVICE is {settings.device}, but torch sees no GPU; set it to cpu or auto")
    return device


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
