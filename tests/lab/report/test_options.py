"""What of a recipe is not the default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genret.lab.report.options import changed_options, marked_lines
from genret.recipe.load import load_recipe

RECIPE = """
dataset: {type: folder, root: pictures}
encoder: {type: paired, image: {type: timm, model: a}, text: {type: sentence, model: b}, train: {epochs: 7}}
identifier: {type: rq, codebook_size: 256, num_levels: 3, train: {lr: 0.5}}
backbone: {type: t5}
loss: {token: {weight: 1.0}, rank: {weight: 0.25}}
train: {epochs: 20, seed: 3}
search: {num_beams: 33}
"""


def test_what_differs_is_listed_with_its_default(tmp_path: Path, registries: Any) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    recipe = load_recipe([tmp_path / "recipe.yaml"], [], registries)
    found = {one.key: one for one in changed_options(recipe)}
    assert (found["search.num_beams"].value, found["search.num_beams"].default) == (33, 20)
    assert (found["train.seed"].value, found["loss.rank.weight"].value) == (3, 0.25)
    assert found["identifier.train.lr"].value == 0.5 and found["encoder.train.epochs"].value == 7
    assert found["dataset.root"].has_default is False, "every recipe has to say it"
    for same in ("train.epochs", "loss.token.weight", "identifier.codebook_size", "encoder.train.lr", "train.lr"):
        assert same not in found, same

    # every option that is not listed is what a recipe without it has
    plain = recipe.canonical()
    for one in changed_options(recipe):
        inner: Any = plain
        for key in one.path:
            inner = inner[key]
        assert inner == one.value, one


def test_marks_stand_at_the_lines(tmp_path: Path, registries: Any) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    recipe = load_recipe([tmp_path / "recipe.yaml"], [], registries)
    lines = marked_lines(recipe)
    assert "\n".join(line.text for line in lines) + "\n" == recipe.dump_yaml()
    marks = {line.text.strip(): line.mark for line in lines}
    assert marks["num_beams: 33"] == "changed" and marks["type: rq"] == "chosen" and marks["score: level"] == ""
    assert marks["codebook_size: 256"] == "" and marks["lr: 0.5"] == "changed"
