"""`genret validate`, `genret components`: looking without running."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from genret.cli.options import JsonOption, Overrides
from genret.cli.state import state_of


def add(cli: typer.Typer) -> None:
    cli.command("validate", short_help="Check a recipe without running it.")(validate)
    cli.command("components", short_help="Show what fits each slot.")(components)


def validate(
    context: typer.Context,
    recipes: Annotated[list[Path], typer.Argument(metavar="RECIPE", help="Recipe files, as for train.")],
    overrides: Overrides = None,
    show: Annotated[bool, typer.Option("--print", help="Print the resolved recipe, every option spelt out.")] = False,
) -> None:
    """Check a recipe without running it: needs no weights and no network.

    \b
    Examples:
      genret validate recipes/avg.yaml
      genret validate recipes/avg.yaml --set identifier.num_levels=6 --print > mine.yaml
    """
    from genret.recipe.compatibility import notes
    from genret.recipe.load import load_recipe

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


def components(
    context: typer.Context,
    kind: Annotated[str | None, typer.Argument(help="dataset, encoder, identifier, backbone, loss, reranker")] = None,
    name: Annotated[str | None, typer.Argument(help="One component, to see its options.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what fits each slot of a recipe, with its options and where it comes from.

    \b
    Examples:
      genret components
      genret components identifier
      genret components identifier rq
    """
    from genret.cli.describe import describe, kind_named

    state = state_of(context)
    with state.ui(as_json) as ui:
        registries = state.registries
        kinds = [registry.kind for registry in registries.all()] if kind is None else [kind_named(kind)]
        names = [
            (kind, known) for kind in kinds for known in ([name] if name is not None else registries.of(kind).names())
        ]
        # one component that is asked for by name fails loudly, in a list a broken one is shown as such
        found = [describe(registries, *pair, strict=name is not None) for pair in names]
        if as_json:
            ui.document({"components": [part.as_json() for part in found]})
        elif name is not None:
            ui.table(found[0].page())
        else:
            for kind in kinds:
                of_kind = [part for part in found if part.kind == kind]
                if of_kind:
                    ui.table(_listing(kind, of_kind))
            ui.note("Options of one: genret components KIND NAME")


def _listing(kind: str, parts: list[Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=kind, title_justify="left", title_style="bold", box=None, show_header=False, padding=(0, 2, 0, 0)
    )
    for part in parts:
        table.add_row(f"  {part.name}", Text(part.error or part.summary), Text(part.origin, style="dim"))
    return table
