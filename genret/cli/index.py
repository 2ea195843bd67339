"""`genret index`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genret.api import IndexReport, Ui
from genret.cli.options import JsonOption, RunOption, user_path
from genret.cli.state import state_of
from genret.errors import UsageError
from genret.folders import run_option

SHOWN = 20
"""Skipped files that people see; --json lists all."""


def add(cli: typer.Typer) -> None:
    cli.command("index", short_help="Add your own pictures, or remove some.")(index)


def index(
    context: typer.Context,
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH", parser=user_path, help="Pictures, or folders of them.")
    ] = None,
    run: RunOption = None,
    remove: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="An image id to forget, as search --json shows it. Repeatable."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Add pictures without retraining, or remove some. The next search sees the change.

    Files that are no usable pictures are skipped and reported.

    \b
    Examples:
      genret index ~/Pictures
      genret index cat.jpg dog.png --json
      genret index --remove /home/me/Pictures/cat.jpg
    \b
    Next: genret search "what one of them shows"
    """
    state = state_of(context)
    if not paths and not remove:
        raise UsageError("name pictures or folders to add, or --remove ID")
    with state.ui(as_json) as ui, state.open(run) as opened:
        nothing = IndexReport(0, 0, [])
        removed = opened.remove(remove) if remove else nothing
        added = opened.index(paths, ui) if paths else nothing
        report = added._replace(removed=removed.removed, skipped=[*added.skipped, *removed.skipped])
        if as_json:
            ui.document(report._asdict() | {"skipped": [skipped._asdict() for skipped in report.skipped]})
        else:
            _tell(report, ui, run_option(opened.folder, state.settings))
        if not report.added and not report.removed:
            raise typer.Exit(1)


def _tell(report: IndexReport, ui: Ui, option: str) -> None:
    counts = {"added": report.added, "removed": report.removed}
    done = [f"{what} {_pictures(count)}" for what, count in counts.items() if count]
    if done:
        ui.result(f'{" and ".join(done).capitalize()}. Next: genret search "what one shows"{option}')
    for path, reason in report.skipped[:SHOWN]:
        ui.warn(f"skipped: {reason if path in reason else f'{path}: {reason}'}")  # most name the file already
    if len(report.skipped) > SHOWN:
        ui.warn(f"and {len(report.skipped) - SHOWN} more were skipped; --json lists all")
    if not done:
        ui.note("Error: nothing could be added or removed.")


def _pictures(count: int) -> str:
    return f"{count:,} picture{'' if count == 1 else 's'}"
