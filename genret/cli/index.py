"""`genret index`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genret.api import IndexReport
from genret.cli.options import JsonOption, RunOption, user_path
from genret.cli.state import state_of
from genret.errors import UsageError
from genret.kit.text import clean

if TYPE_CHECKING:
    from genret.cli.ui import Ui

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
        report = _sum(opened.index(paths, ui) if paths else nothing, removed)
        if as_json:
            ui.document(_as_document(report))
        else:
            _tell(report, ui)
        if not report.added and not report.removed:
            raise typer.Exit(1)


def _sum(first: IndexReport, second: IndexReport) -> IndexReport:
    return first._replace(
        added=first.added + second.added,
        removed=first.removed + second.removed,
        skipped=[*first.skipped, *second.skipped],
    )


def _as_document(report: IndexReport) -> dict[str, object]:
    skipped = [{"path": path, "reason": reason} for path, reason in report.skipped]
    return {"added": report.added, "removed": report.removed, "skipped": skipped}


def _tell(report: IndexReport, ui: Ui) -> None:
    done = [f"added {_pictures(report.added)}"] if report.added else []
    done += [f"removed {_pictures(report.removed)}"] if report.removed else []
    if done:
        ui.result(f'{" and ".join(done).capitalize()}. Next: genret search "what one shows"')
    for path, reason in report.skipped[:SHOWN]:
        # most reasons name the file already
        ui.warn(f"skipped: {clean(reason if path in reason else f'{path}: {reason}')}")
    if len(report.skipped) > SHOWN:
        ui.warn(f"and {len(report.skipped) - SHOWN} more were skipped; --json lists all")
    if not done:
        ui.note("Error: nothing could be added or removed.")


def _pictures(count: int) -> str:
    return f"{count:,} picture{'' if count == 1 else 's'}"
