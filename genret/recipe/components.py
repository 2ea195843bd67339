"""Recipe and registries → components, created but neither fitted nor loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from genret.api import Backbone, Dataset, Encoder, Identifier, Loss, Reranker, Retriever
from genret.plugin.code import code_keys
from genret.plugin.registry import Registries
from genret.recipe.compatibility import unused_losses
from genret.recipe.schema import Recipe, Slot


@dataclass(frozen=True, kw_only=True)
class Components:
    """A recipe's components. `identifier` and `backbone` are set if the retriever needs them."""

    dataset: Dataset
    texts: Dataset | None
    """The source of sentences that teach in place of captions"""
    encoder: Encoder
    identifier: Identifier | None
    backbone: Backbone | None
    losses: dict[str, Loss]
    """Losses with a weight and an effect"""
    reranker: Reranker | None
    retriever: Retriever

    @property
    def code(self) -> dict[str, str]:
        """Fingerprints of the code of plugins."""
        parts = (self.encoder, self.identifier, self.backbone, *self.losses.values(), self.reranker, self.retriever)
        return code_keys(parts)

    def losses_of(self, stage: str) -> dict[str, Loss]:
        """The losses of the stage `tokenizer` or `generator`."""
        return {name: loss for name, loss in self.losses.items() if loss.stage == stage}


def components(recipe: Recipe, registries: Registries) -> Components:
    """Creates every component that the recipe names and its retriever needs."""
    from transformers.utils import logging  # here, so that a catalog is opened without it

    logging.disable_progress_bar()  # type: ignore[no-untyped-call] # they disturb ours

    def made(kind: str, slot: Slot | None, needed: bool = True) -> Any:
        if slot is None or not needed:
            return None
        component = registries.of(kind).get(slot.type)(slot.options, resolve_weights=registries.resolve_weights)
        return registries.watched(component, slot.type)

    needs, unused = recipe.retriever.needs, unused_losses(recipe, registries)
    return Components(
        dataset=made("dataset", recipe.dataset),
        texts=made("dataset", recipe.texts),
        encoder=made("encoder", recipe.encoder),
        identifier=made("identifier", recipe.identifier, "identifier" in needs),
        backbone=made("backbone", recipe.backbone, "backbone" in needs),
        losses={
            name: registries.loss.get(name)(config, resolve_weights=registries.resolve_weights)
            for name, config in recipe.loss.items()
            if config.weight > 0 and name not in unused
        },
        reranker=made("reranker", recipe.rerank),
        retriever=made("retriever", recipe.retriever),
    )
