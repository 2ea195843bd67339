"""`genret validate`: checks a recipe without running it."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from genret.cli.options import Overrides, RecipeFiles
from genret.cli.state import state_of


def add(cli: typer.Typer) -> None:
    cli.command("validate", short_help="Check a recipe without running it.")(validate)


def validate(
    context: typer.Context,
    recipes: RecipeFiles,
    overrides: Overrides = None,
    show: Annotated[bool, typer.Option("--print", help="Print the resolved recipe with all options.")] = False,
) -> None:
    """Check a recipe without running it: needs no weights and no network.

    \b
    Examples:
      genret validate recipes/avg.yaml
      genret validate recipes/avg.yaml --set identifier.num_levels=6 --print > mine.yaml
    """
    from genret.recipe.load import load_recipe
    from genret.shell.notes import notes

    state = state_of(context)
    with state.ui() as ui:
        recipe = load_recipe(recipes, overrides or [], state.registries)
        for note in notes(recipe, state.registries):
            ui.note(f"Note: {note}")
        if show:
            ui.result(recipe.dump_yaml().rstrip())
        else:
            sets = [word for override in overrides or [] for word in ("--set", override)]
            ui.result(f"The recipe is sound. Next: genret train {shlex.join([*map(str, recipes), *sets])}")
