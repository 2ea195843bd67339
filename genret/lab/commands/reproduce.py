"""`genret reproduce`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from genret.cli.failures import explain
from genret.cli.options import JsonOption, Overrides, user_path
from genret.cli.state import state_of
from genret.errors import UsageError
from genret.lab.commands.sweep import Keep, KeepOption

MOST_IMAGES = 100_000_000
"""Catalog sizes for measuring speed."""


class On(StrEnum):
    EMOJI = "emoji"
    FLICKR8K = "flickr8k"
    FLICKR30K = "flickr30k"
    COCO = "coco"


def add(cli: typer.Typer) -> None:
    cli.command("reproduce", short_help="A table or figure of the paper, reproduced.")(reproduce)


def reproduce(
    context: typer.Context,
    table: Annotated[str, typer.Argument(metavar="TABLE", help="table1, table2, ..., table7, figure4 or figure5.")],
    on: Annotated[On, typer.Option("--on", help="The data set.")] = On.EMOJI,
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", parser=user_path, help="The folder of that data set; the same as --set dataset.root=DIR."
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, metavar="N", help="Seeds 0 to N-1. [default: the recipes' own seed]"),
    ] = None,
    overrides: Overrides = None,
    sizes: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="Catalog sizes of table2 and figure4. [default: the paper's; figure4 to 1M]"),
    ] = None,
    recipes: Annotated[
        Path | None,
        typer.Option(metavar="DIR", parser=user_path, help="The folder of genret's recipes. [default: recipes/]"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", parser=user_path, help="The folder of the runs. [default: <home>/sweeps/paper-<data>]"
        ),
    ] = None,
    keep: KeepOption = Keep.ALL,
    as_json: JsonOption = False,
) -> None:
    """Reproduce a table or a figure of the paper and show the results beside the paper's figures.

    Missing runs are trained, as by `genret sweep`: tables share runs, and the same command continues after a stop.
    Below a table, the paper's differences are compared with ours, with significance. The output is saved as TABLE.json
    and TABLE.md beside the runs. Overrides apply to every row, for example for a quick try.

    \b
    Examples:
      genret reproduce table3
      genret reproduce table1 --on flickr8k --root PATH/TO/flickr8k --seeds 2 --keep figures
      genret reproduce table7 --set train.epochs=5
      genret reproduce figure4 --sizes 1000,100000
    """
    from genret.lab.paper import reproduce as paper
    from genret.lab.paper.paper import read_table

    state = state_of(context)
    with state.ui(True) as ui:  # output of single runs is not shown
        wanted = read_table(table)
        where = [] if root is None else [f"dataset.root={root}"]
        folder = paper.find_recipes(recipes)
        lines = paper.lines_of(wanted, on.value, folder, [*where, *(overrides or [])], seeds, state.registries)
        lines = paper.with_inputs(lines, on.value)
        from genret.lab.paper.shown import Workplace, checked_sizes, make
        from genret.lab.sweep.sweep import Sweep

        measured_at = checked_sizes(wanted, _sizes(sizes), keep.value)
        out = out or state.settings.home / "sweeps" / f"paper-{on.value}"
        try:
            sweep = Sweep(out, state.registries, state.settings, ui, keep.value, whole=wanted.shows != "quality")
            results = sweep.run([one.row for one in lines], explain)
            place = Workplace(out, state.registries, state.settings, ui)
            made = make(wanted, on.value, lines, results, measured_at, place)
        except KeyboardInterrupt:
            ui.note("\nStopped; the same command goes on from here.")
            raise
        ui.note(f"The runs and {wanted.file_name} are in {out}")
    with state.ui(as_json) as ui:
        if as_json:
            ui.document(made.document)
        else:
            ui.table(made.table.rich())
            ui.result(made.text)
    if any(result.failures for result in results):
        raise typer.Exit(1)


def _sizes(text: str | None) -> list[int] | None:
    words = [] if text is None else [word.strip().replace("_", "") for word in text.split(",")]
    if any(not word.isdecimal() or not 0 < int(word) <= MOST_IMAGES for word in words):
        raise UsageError(f"--sizes {text}: give whole numbers from 1 to {MOST_IMAGES:,}, separated by commas")
    return [int(word) for word in words] or None
