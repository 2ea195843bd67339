"""Which options of a recipe work together: invalid combinations are errors (those without effect: shell/notes.py).

This lets users swap one component (`--set identifier=numeric`) without editing the rest of the recipe.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from genret.api import Backbone, Identifier, LoopOptions, Loss
from genret.plugin.registry import Registries

if TYPE_CHECKING:
    from genret.recipe.schema import Recipe


def unused_losses(recipe: Recipe, registries: Registries) -> dict[str, str]:
    """Losses that the selected components cannot compute, by name, each with the reason."""
    if recipe.identifier is None or recipe.backbone is None:
        return {}
    identifier: type[Identifier] = registries.identifier.get(recipe.identifier.type)
    backbone: type[Backbone] = registries.backbone.get(recipe.backbone.type)
    unused = {}
    for name, config in recipe.loss.items():
        loss: type[Loss] = registries.loss.get(name)
        if config.weight == 0:
            continue
        if loss.stage == "tokenizer" and not identifier.uses_tokenizer_losses:
            unused[name] = f"identifier {recipe.identifier.type} trains no tokenizer"
        elif loss.stage == "tokenizer" and getattr(recipe.identifier.options, "train", LoopOptions()).epochs == 0:
            unused[name] = "identifier.train.epochs is 0"
        elif loss.needs_teacher and not identifier.has_teacher:
            unused[name] = f"identifier {recipe.identifier.type} cannot code vectors softly"
        elif (loss.needs_image_logits or loss.needs_captions) and not backbone.reads_features:
            unused[name] = f"backbone {recipe.backbone.type} does not read image vectors"
    return unused


def chance_level(recipe: Recipe, registries: Registries) -> str | None:
    """Why test images can only be found by chance, if identifiers of unseen images do not depend on their content."""
    if not recipe.has_identifiers or recipe.identifier is None or recipe.protocol == "transductive-pseudo":
        return None
    name = recipe.identifier.type
    identifier: type[Identifier] = registries.identifier.get(name)
    if identifier.new_images == "content_based":
        return None
    if identifier.new_images == "unsupported" and recipe.protocol == "inductive":
        return f"not applicable: under protocol inductive the searched pictures get no {name} identifiers at all"
    return (
        f"chance by construction: {name} identifiers say nothing of a picture, and under protocol {recipe.protocol} no "
        "query for the searched ones is trained on"
    )


def invalid(recipe: Recipe, registries: Registries) -> Iterator[tuple[tuple[str, ...], str]]:
    """Explicit options that the selected components cannot support: key path and what to change."""
    rerank = recipe.rerank
    if rerank is not None and rerank.type == "reverse" and getattr(rerank.options, "model", None) is None:
        yield from _needs_reverse(recipe, registries)
    if not recipe.has_identifiers or recipe.identifier is None or recipe.backbone is None:
        return
    if registries.dataset.get(recipe.dataset.type).provides == "images":
        if recipe.texts is None:
            yield ("texts",), f"dataset {recipe.dataset.type} has no captions; say what teaches, such as texts: words"
        if recipe.protocol != "transductive-index":
            yield ("protocol",), f"set it to transductive-index: {recipe.dataset.type} searches what it trains on"
    identifier: type[Identifier] = registries.identifier.get(recipe.identifier.type)
    if getattr(recipe.backbone.options, "copy_code_vectors", None) is True and not identifier.has_code_vectors:
        yield (
            ("backbone", "copy_code_vectors"),
            f"identifier {recipe.identifier.type} has no code vectors to copy; set it to auto or false",
        )
    options, can_read = recipe.backbone.options, registries.backbone.get(recipe.backbone.type).has_query_vectors
    if recipe.search.self_guidance and not (can_read and getattr(options, "code_head", True)):
        yield ("search", "self_guidance"), "needs a backbone that reads a query as a vector; set backbone.code_head"
    if identifier.num_spaces > registries.encoder.get(recipe.encoder.type).num_spaces:
        yield ("encoder",), f"identifier {recipe.identifier.type} needs vectors of several spaces, like two-space's"
    if recipe.train.epochs == 0:
        return
    stages = {name: registries.loss.get(name).stage for name in recipe.loss}
    wanted = [name for name, config in recipe.loss.items() if stages[name] == "generator" and config.weight > 0]
    unused = unused_losses(recipe, registries)
    if not wanted:
        known = [name for name in registries.loss if registries.loss.get(name).stage == "generator"]
        yield ("loss",), f"the generator has nothing to learn from: give one of {', '.join(known)} a weight above 0"
    elif all(name in unused for name in wanted):
        reasons = "; ".join(f"{name} has no effect, {unused[name]}" for name in wanted)
        yield ("loss",), f"the generator has nothing to learn from: {reasons}; give loss.token a weight above 0"


def _needs_reverse(recipe: Recipe, registries: Registries) -> Iterator[tuple[tuple[str, ...], str]]:
    """Reranking by the run's own log p(query | image) needs a generator that was trained to compute it."""
    learnt = [
        name
        for name, config in recipe.loss.items()
        if config.weight > 0
        and registries.loss.get(name).needs_captions
        and name not in unused_losses(recipe, registries)
    ]
    if not recipe.has_identifiers or not learnt:
        yield (
            ("rerank",),
            "reverse asks the run's own generator for log p(query | picture), which it does not learn here; give "
            "loss.reverse a weight above 0 (with a backbone that reads image vectors), or name a captioner as "
            "rerank.model",
        )
