"""`genret sweep`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from genret.cli.failures import explain
from genret.cli.options import JsonOption, Overrides, RecipeFiles, user_path
from genret.cli.state import state_of


class Keep(StrEnum):
    ALL = "all"
    FIGURES = "figures"


KeepOption = Annotated[
    Keep, typer.Option(help="What to keep of each run: everything, or recipe, figures and logs without the models.")
]


def add(cli: typer.Typer) -> None:
    cli.command("sweep", short_help="A grid of runs, one table.")(sweep)


def sweep(
    context: typer.Context,
    recipes: RecipeFiles,
    grids: Annotated[
        list[str],
        typer.Option(
            "--grid", metavar="KEY=V,V,...", help="Values of one option (YAML). Repeatable: all combinations."
        ),
    ],
    seeds: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, metavar="N", help="Seeds 0 to N-1. [default: the recipe's own seed]"),
    ] = None,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", parser=user_path, help="The folder of the runs. [default: <home>/sweeps/<recipe>-<keys>]"
        ),
    ] = None,
    keep: KeepOption = Keep.ALL,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe over a grid of options and show one table.

    Every combination is checked before anything runs. Each is a run directory; stages with unchanged inputs are reused,
    finished runs are read, and interrupted ones continue when the command is repeated. A failed run is reported and the
    others continue (exit code 1 at the end). The table is saved as table.json and table.md beside the runs. Values of
    search.num_beams are measured on one run each, without new training.

    \b
    Examples:
      genret sweep recipes/avg.yaml --grid identifier.codebook_size=64,128,256 --seeds 2
      genret sweep recipes/avg.yaml --grid "identifier=rq,{type: structured}" --grid train.lr=1e-3,2e-3
      genret sweep recipes/avg.yaml --grid search.num_beams=1,5,10,20 --keep figures
    """
    from genret.lab.sweep.grid_sweep import as_json as document_of
    from genret.lab.sweep.grid_sweep import plan, sweep_name, table, write_table
    from genret.shell.notes import notes

    state = state_of(context)
    with state.ui(True) as ui:  # output of single runs is not shown
        made = plan(recipes, overrides or [], grids, seeds, state.registries)
        folder = out or state.settings.home / "sweeps" / sweep_name(recipes, made.axes)
        for note in dict.fromkeys(
            note for row in made.rows for one in row.recipes for note in notes(one, state.registries)
        ):
            ui.note(f"Note: {note}")
        from genret.lab.sweep.sweep import Sweep

        try:
            results = Sweep(folder, state.registries, state.settings, ui, keep.value).run(made.rows, explain)
        except KeyboardInterrupt:
            ui.note("\nStopped; the same command goes on from here.")
            raise
        document, shown = document_of(made, results), table(made, results)
        write_table(folder, document, shown)
        ui.note(f"The runs and the table are in {folder}")
    with state.ui(as_json) as ui:
        if as_json:
            ui.document(document)
        else:
            ui.table(shown.rich())
    if any(result.failures for result in results):
        raise typer.Exit(1)
