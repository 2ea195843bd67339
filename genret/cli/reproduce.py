"""`genret reproduce`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from genret.cli.failures import explain
from genret.cli.options import JsonOption, Overrides
from genret.cli.state import state_of
from genret.cli.sweep import Keep, KeepOption


class On(StrEnum):
    EMOJI = "emoji"
    FLICKR8K = "flickr8k"
    FLICKR30K = "flickr30k"
    COCO = "coco"


def add(cli: typer.Typer) -> None:
    cli.command("reproduce", short_help="A table of the paper, its figures beside ours.")(reproduce)


def reproduce(
    context: typer.Context,
    table: Annotated[str, typer.Argument(metavar="TABLE", help="table1, table3, table4, table5, table6 or table7.")],
    on: Annotated[On, typer.Option("--on", help="The data to run it on.")] = On.EMOJI,
    root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder of that data set; the same as --set dataset.root=DIR."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, metavar="N", help="Seeds 0 to N-1. [default: the recipes' own seed]"),
    ] = None,
    overrides: Overrides = None,
    recipes: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder of genret's recipes. [default: recipes/]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the runs go. [default: <home>/sweeps/paper-<data>]")
    ] = None,
    keep: KeepOption = Keep.ALL,
    as_json: JsonOption = False,
) -> None:
    """Run a table of the paper and show its figures beside the paper's.

    Runs what is missing, as `genret sweep` does: runs that tables share are made once, and the same command goes on
    after a stop. Below the table stands which of the paper's differences are seen here, with significance. Both are
    kept as TABLE.json and TABLE.md beside the runs. Overrides apply to every row, for a quicker look, say.

    \b
    Examples:
      genret reproduce table3
      genret reproduce table1 --on flickr8k --root PATH/TO/flickr8k --seeds 2 --keep figures
      genret reproduce table7 --set train.epochs=5
    """
    from genret.train import reproduce as paper
    from genret.train.paper import read_table

    state = state_of(context)
    with state.ui(True) as ui:  # what single runs say is beside the point here
        wanted = read_table(table)
        where = [] if root is None else [f"dataset.root={root}"]
        folder = paper.find_recipes(recipes)
        lines = paper.lines_of(wanted, on.value, folder, [*where, *(overrides or [])], seeds, state.registries)
        paper.check_inputs(lines, on.value)
        from genret.train.files import write_json, write_text
        from genret.train.sweep import Sweep

        out = out or state.settings.home / "sweeps" / f"paper-{on.value}"
        try:
            results = Sweep(out, state.registries, state.settings, ui, keep.value).run(
                [one.row for one in lines], explain
            )
        except KeyboardInterrupt:
            ui.note("\nStopped; the same command goes on from here.")
            raise
        signs = paper.signs(wanted, on.value, lines, results)
        document = paper.as_json(wanted, on.value, lines, results, signs)
        shown, seen = paper.text_table(wanted, on.value, lines, results), paper.signs_text(signs)
        name = wanted.title.partition(":")[0].replace(" ", "").lower()
        write_json(out / f"{name}.json", document)
        write_text(out / f"{name}.md", f"{shown.markdown()}\n{seen}\n")
        ui.note(f"The runs and the table are in {out}")
    with state.ui(as_json) as ui:
        if as_json:
            ui.document(document)
        else:
            ui.table(shown.rich())
            ui.result(seen)
    if any(result.failures for result in results):
        raise typer.Exit(1)
