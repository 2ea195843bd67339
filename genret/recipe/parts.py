"""The only wiring: recipe and registries → components → a retriever."""

from __future__ import annotations

from typing import Any, NamedTuple

from transformers.utils import logging as transformers_logging

from genret.api import Backbone, Component, Dataset, Encoder, Identifier, Loss, Reranker
from genret.plugin.registry import Registries
from genret.recipe.compatibility import idle_losses
from genret.recipe.schema import Recipe, Slot


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
