"""`genret report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genret.cli.options import JsonOption, user_path
from genret.cli.state import state_of
from genret.errors import UsageError


def add(cli: typer.Typer) -> None:
    cli.command("report", short_help="One page about a run, with pictures.")(report)


def report(
    context: typer.Context,
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN",
            parser=user_path,
            help="Run directories, or their names in <home>/runs. [default: newest finished]",
        ),
    ] = None,
    queries: Annotated[
        int, typer.Option(min=0, max=1000, metavar="N", help="Number of queries per run that are shown with pictures.")
    ] = 12,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=user_path,
            help="The file of the page. [default: RUN/report.html; of several, the first RUN's comparison.html]",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write one HTML page about a finished run, or about several side by side.

    Results and baselines; recall by beams; where relevant pictures are lost; identifiers; the best and worst queries
    with their pictures; learning curves; the recipe. The page is one file, without network access or scripts.

    \b
    Examples:
      genret report
      genret report avg-1 irgen-1 --out comparison.html
      genret report avg-1 --queries 40 --json
    """
    from genret.folders import finished_run

    state = state_of(context)
    named = list(runs) if runs else [None]
    folders = [finished_run(run, state.settings) for run in named]
    if twice := [run for run, folder in zip(named, folders, strict=True) if folders.count(folder) > 1]:
        raise UsageError(f"the run {twice[0]} is named twice")
    where = out or folders[0] / ("report.html" if len(folders) == 1 else "comparison.html")
    if where.is_dir():
        raise UsageError(f"--out {where} is a folder; name a file")
    with state.ui(as_json) as ui:
        from genret.lab.report.page import write_report

        found = write_report(folders, where, state.registries, state.settings, ui, queries)
        if as_json:
            ui.document(found.as_json())
        else:
            ui.result(f"{found.path} ({found.bytes / 1e6:.1f} MB, {found.pictures:,} pictures): open it in a browser")
