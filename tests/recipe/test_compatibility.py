"""One word of recipes/avg.yaml is swapped: what loses its meaning is noted, what becomes impossible is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from genret.errors import RecipeError
from genret.plugin.loading import load_plugins
from genret.plugin.registry import Registries
from genret.recipe.compatibility import unused_losses
from genret.recipe.load import load_recipe
from genret.recipe.schema import Recipe
from genret.shell.notes import notes

AVG = Path(__file__).parents[2] / "recipes" / "avg.yaml"


@pytest.fixture(scope="module")
def registries() -> Registries:
    return load_plugins().registries


@pytest.fixture(scope="module")
def swapped(registries: Registries) -> Callable[..., Recipe]:
    return lambda *overrides: load_recipe([AVG], overrides, registries)


def test_as_it_is_nothing_is_noted(swapped: Callable[..., Recipe], registries: Registries) -> None:
    assert notes(swapped(), registries) == []


def test_every_identifier_and_backbone_validates_by_one_word(
    swapped: Callable[..., Recipe], registries: Registries
) -> None:
    for kind in ("identifier", "backbone"):
        for name in registries.of(kind):
            cls = registries.of(kind).get(name)
            both = ["encoder=two-space"] if name == "two-space" else []  # each is made for the other
            recipe = swapped(*both, f"{kind}={name}")
            idle = unused_losses(recipe, registries)
            if kind == "identifier":
                assert ("recon" in idle) == (not cls.uses_tokenizer_losses), name
                assert ("distill" in idle) == (not cls.has_teacher), name
            assert all(f"loss.{loss} has no effect" in "\n".join(notes(recipe, registries)) for loss in idle)


def test_more_candidates_than_beams_are_said_to_be_idle(swapped: Callable[..., Recipe], registries: Registries) -> None:
    (note,) = notes(swapped("rerank={type: dense, candidates: 256}", "search.num_beams=30"), registries)
    assert "rerank.candidates is 256, but 30 beams lead to about as many" in note and "search.num_beams" in note
    assert notes(swapped("rerank={type: dense, candidates: 30}"), registries) == []


def test_a_scheme_without_tokenizer_and_teacher(swapped: Callable[..., Recipe], registries: Registries) -> None:
    said = "\n".join(notes(swapped("identifier=numeric"), registries))
    assert "loss.recon has no effect: identifier numeric trains no tokenizer" in said
    assert "loss.distill has no effect: identifier numeric cannot code vectors softly" in said
    assert "train.teacher_targets has no effect" in said
    assert "chance by construction: numeric identifiers say nothing of a picture" in said
    said = "\n".join(notes(swapped("identifier=atomic"), registries))
    assert "not applicable: under protocol inductive the searched pictures get no atomic identifiers" in said
    said = "\n".join(notes(swapped("identifier=numeric", "protocol=transductive-pseudo"), registries))
    assert "chance" not in said


def test_a_scheme_whose_codes_do_not_add_up_is_searched_without_guidance(
    swapped: Callable[..., Recipe], registries: Registries
) -> None:
    asked, alone = swapped(), swapped("identifier=structured")
    assert asked.search.guidance > 0 and asked.train.written_levels is not None
    assert (alone.search.guidance, alone.train.written_levels) == (0, None)
    said = "\n".join(notes(alone, registries))
    for name in ("search.guidance", "train.written_levels"):
        assert f"{name} has no effect: the codes of identifier structured have no vectors that add up" in said
    assert "have no vectors" not in "\n".join(notes(swapped("identifier=residual-kmeans"), registries))
    assert "idle" not in alone.canonical()


def test_a_tokenizer_that_is_not_trained(swapped: Callable[..., Recipe], registries: Registries) -> None:
    said = notes(swapped("identifier.train.epochs=0"), registries)
    assert said == [f"loss.{name} has no effect: identifier.train.epochs is 0" for name in ("recon", "commit", "align")]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("identifier=numeric", "backbone.copy_code_vectors=true"), "identifier numeric has no code vectors to copy"),
        (
            ("identifier=numeric", "loss.token.weight=0", "loss.rank.weight=0"),
            "distill has no effect, identifier numeric cannot code vectors softly; give loss.token a weight above 0",
        ),
        (("identifier=two-space",), "identifier two-space needs vectors of several spaces"),
        (
            ("loss.token.weight=0", "loss.rank.weight=0", "loss.distill.weight=0"),
            "the generator has nothing to learn from: give one of",
        ),
    ],
)
def test_impossible_wishes_are_refused(swapped: Callable[..., Recipe], overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(RecipeError) as refused:
        swapped(*overrides)
    assert said in str(refused.value)


def test_reverse_reranking_needs_a_generator_that_learnt_it(
    swapped: Callable[..., Recipe], registries: Registries
) -> None:
    learns = "loss.reverse={weight: 1}"
    assert notes(swapped("rerank=reverse", learns), registries) == []
    swapped("rerank={type: reverse, model: some/captioner}")
    for overrides in (("rerank=reverse",), ("rerank=reverse", learns, "backbone=llama"), ("retriever=two-tower",)):
        with pytest.raises(RecipeError, match=r"rerank: reverse asks the run's own generator"):
            swapped("rerank=reverse", *overrides)


def test_pseudo_queries_need_their_protocol(swapped: Callable[..., Recipe], registries: Registries) -> None:
    (note,) = notes(swapped("pseudo_queries.file=made.jsonl"), registries)
    assert note == "pseudo_queries has no effect under protocol inductive"
    (note,) = notes(swapped("retriever=two-tower", "protocol=transductive-pseudo", "loss=null"), registries)[1:]
    assert "protocol transductive-pseudo has no effect" in note
