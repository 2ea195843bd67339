"""`genret compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genret.cli.options import JsonOption, user_path
from genret.cli.state import state_of
from genret.errors import GenretError, UsageError


def add(cli: typer.Typer) -> None:
    cli.command("compare", short_help="Runs side by side, with significance.")(compare)


def compare(
    context: typer.Context,
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", parser=user_path, help="Run directories, or their names in <home>/runs."),
    ],
    split: Annotated[str, typer.Option(help="Split whose pictures are searched by its captions.")] = "test",
    num_beams: Annotated[
        int | None,
        typer.Option(min=1, max=99_999, help="Compare with this number of beams. [default: each recipe's own]"),
    ] = None,
    all_pairs: Annotated[bool, typer.Option("--all-pairs", help="Test all pairs instead of all against the first.")] = (
        False
    ),
    as_json: JsonOption = False,
) -> None:
    """Compare finished runs and test which differences are significant.

    Figures come with 95 % bootstrap intervals over queries, differences from the first run with Fisher's paired
    randomization test. Runs of one recipe with several seeds count as one, by their means. Missing evaluations are made
    first.

    \b
    Examples:
      genret compare avg-1 irgen-1
      genret compare avg-1 avg-2 irgen-1 irgen-2 --all-pairs
      genret compare avg-1 irgen-1 --split dev --num-beams 20 --json
    """
    from genret.folders import finished_run

    state = state_of(context)
    folders = [finished_run(run, state.settings) for run in runs]
    if twice := [run for run, folder in zip(runs, folders, strict=True) if folders.count(folder) > 1]:
        raise UsageError(f"the run {twice[0]} is named twice")
    with state.ui(as_json) as ui:
        from genret.lab.compare.compare import compare as compare_outcomes
        from genret.lab.compare.run_summary import NotMeasured, RunSummary, read_run_summary

        def outcome(folder: Path) -> RunSummary:
            try:
                return read_run_summary(folder, state.registries, split, num_beams)
            except NotMeasured:
                from genret.run import Run

                ui.note(f"{folder}: not evaluated for this yet")
                with Run(folder, state.registries, state.settings) as run:
                    found = run.evaluate(split, [num_beams] if num_beams else [], ui=ui)
            try:
                return read_run_summary(folder, state.registries, split, num_beams)
            except NotMeasured:
                why = found.remark or "its ranks could not be kept"
                raise GenretError(f"{folder} has no figures for split '{split}': {why}") from None

        comparison = compare_outcomes([outcome(folder) for folder in folders], all_pairs)
        if as_json:
            ui.document(comparison.as_json())
        else:
            for table in comparison.tables():
                ui.table(table)
