"""Options of a recipe that are allowed but have no effect."""

from __future__ import annotations

from collections.abc import Iterator

from genret.api import Identifier
from genret.plugin.registry import Registries
from genret.recipe.compatibility import chance_level, unused_losses
from genret.recipe.schema import PARTS, Recipe


def notes(recipe: Recipe, registries: Registries) -> list[str]:
    """Options that are allowed but have no effect, in plain sentences."""
    return [*_unneeded(recipe, registries), *(_generative(recipe, registries) if recipe.has_identifiers else ())]


def _unneeded(recipe: Recipe, registries: Registries) -> Iterator[str]:
    name, needs = recipe.retriever.type, recipe.retriever.needs
    if unused := [key for key in PARTS if getattr(recipe, key) and key not in needs]:
        yield f"retriever {name} does not use: {', '.join(unused)}"
    if recipe.protocol != "inductive" and not needs and not registries.retriever.get(name).learns:
        yield f"protocol {recipe.protocol} has no effect: {name} trains on no searched images"


def _generative(recipe: Recipe, registries: Registries) -> Iterator[str]:
    unused = unused_losses(recipe, registries)
    yield from (f"loss.{name} has no effect: {reason}" for name, reason in unused.items())
    assert recipe.identifier is not None
    identifier: type[Identifier] = registries.identifier.get(recipe.identifier.type)
    why = f"the codes of identifier {recipe.identifier.type} have no vectors that add up"
    yield from (f"{name} has no effect: {why}" for name in recipe.idle)
    if recipe.train.teacher_targets > 0 and not identifier.has_teacher:
        yield (
            f"train.teacher_targets has no effect: identifier {recipe.identifier.type} cannot code vectors softly; "
            "captions are taught their own picture's identifier"
        )
    if recipe.train.rank_every > 1 or recipe.train.rank_from > 0:
        rank = [name for name in recipe.loss if registries.loss.get(name).needs_candidates and name not in unused]
        if not any(recipe.loss[name].weight > 0 for name in rank):
            yield "train.rank_every and train.rank_from have no effect: no loss compares candidates"
    if (reason := chance_level(recipe, registries)) is not None:
        yield f"{reason}; --set protocol=transductive-pseudo trains on made-up captions of them, as GRACE does"
    if recipe.protocol != "transductive-pseudo" and recipe.pseudo_queries.file is not None:
        yield f"pseudo_queries has no effect under protocol {recipe.protocol}"
    beams, wanted = recipe.search.num_beams, getattr(recipe.rerank and recipe.rerank.options, "candidates", 0)
    if wanted > beams:
        yield f"rerank.candidates is {wanted}, but {beams} beams lead to about as many pictures; raise search.num_beams"
    if recipe.rerank is None and recipe.search.num_beams < 10:
        yield f"search.num_beams is {recipe.search.num_beams}: recall@10 cannot be measured with fewer than 10"
