"""`genret components`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from genret.cli.options import JsonOption
from genret.cli.state import state_of

if TYPE_CHECKING:
    from genret.guide.describe import Description


def add(cli: typer.Typer) -> None:
    cli.command("components", short_help="Show the components of each slot.")(components)


def components(
    context: typer.Context,
    kind: Annotated[str | None, typer.Argument(help="dataset, encoder, identifier, backbone, loss, reranker")] = None,
    name: Annotated[str | None, typer.Argument(help="One component, to see its options.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the components of each slot of a recipe, with their options and origins.

    \b
    Examples:
      genret components
      genret components identifier
      genret components identifier rq
    """
    from genret.guide.describe import describe, kind_named

    state = state_of(context)
    with state.ui(as_json) as ui:
        registries = state.registries
        kinds = [registry.kind for registry in registries.all()] if kind is None else [kind_named(kind)]
        names = [
            (kind, known) for kind in kinds for known in ([name] if name is not None else registries.of(kind).names())
        ]
        # one component requested by name raises an error, in a list a broken one is shown as broken
        found = [describe(registries, *pair, strict=name is not None) for pair in names]
        if as_json:
            ui.document({"components": [part.as_json() for part in found]})
        elif name is not None:
            ui.table(found[0].page())
        else:
            for kind in kinds:
                if of_kind := [part for part in found if part.kind == kind]:
                    ui.table(_listing(kind, of_kind))
            ui.note("Options of one: genret components KIND NAME")


def _listing(kind: str, parts: list[Description]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=kind, title_justify="left", title_style="bold", box=None, show_header=False, padding=(0, 2, 0, 0)
    )
    for part in parts:
        table.add_row(f"  {part.name}", Text(part.error or part.summary), Text(part.origin, style="dim"))
    return table
