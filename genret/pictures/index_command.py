"""`genret index`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genret.api import IndexReport, Ui
from genret.api.progress import Screen
from genret.cli.options import JsonOption, RunOption, user_path
from genret.cli.state import state_of
from genret.commands.run_folders import run_option
from genret.errors import UsageError

CHANGES = ("added", "updated", "moved", "removed")
SHOWN = 20
"""Number of skipped files that are shown; --json lists all."""


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
        typer.Option(
            metavar="ID", help="Forget an image by id, file, folder, or those of @FILE. Repeatable.", show_default=False
        ),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Forget images of these folders whose files are gone.")
    ] = False,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Pass over files and folders, as .gitignore does. Repeatable."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, and follow the folders until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Add pictures without retraining, or remove some. The next search sees the change.

    A folder can be given repeatedly: files of known size and time are not read again, a file that moved keeps its
    identifier, and a changed picture gets a new one. What a .genretignore file in a folder names is passed over. Files
    that are no usable pictures are skipped and reported.

    \b
    Examples:
      genret index ~/Pictures
      genret index ~/Pictures ~/Scans --prune
      genret index ~/Pictures --ignore "*.gif" --ignore raw/ --watch
      genret index cat.jpg dog.png --json
      genret index --remove ~/Pictures/holiday

    \b
    Next: genret search "what one of them shows"
    """
    from genret.commands.queries import ids

    state = state_of(context)
    if not paths and not remove:
        raise UsageError("name pictures or folders to add, or --remove ID")
    if prune and not paths:
        raise UsageError("--prune needs the folders to look through: genret index --prune ~/Pictures")
    if watch and not paths:
        raise UsageError("--watch needs the folders to follow: genret index --watch ~/Pictures")
    with state.ui(as_json) as ui, state.open(run) as opened:
        nothing = IndexReport(0, 0, [])
        removed = opened.remove(ids("--remove", remove)) if remove else nothing
        report = opened.index(paths, ui, prune=prune, ignore=ignore or ()) if paths else nothing
        report = report.plus(removed)
        option = run_option(opened.folder, state.settings)
        _show(report, ui, option)
        if watch:
            from genret.pictures.watch import changes

            ui.note("Watching; end with Ctrl-C.")
            for _ in changes(paths or ()):
                report = opened.index(paths or (), ui, prune=prune, ignore=ignore or ())
                if any(getattr(report, what) for what in CHANGES) or report.skipped:
                    _show(report, ui, option)
        elif not any(getattr(report, what) for what in (*CHANGES, "unchanged", "missing")):
            raise typer.Exit(1)


def _show(report: IndexReport, ui: Screen, option: str) -> None:
    if ui.json:
        ui.document(report._asdict() | {"skipped": [skipped._asdict() for skipped in report.skipped]})
    else:
        _tell(report, ui, option)


def _tell(report: IndexReport, ui: Ui, option: str) -> None:
    done = [f"{what} {_pictures(count)}" for what in CHANGES if (count := getattr(report, what))]
    there = f"{_pictures(report.unchanged)} {'was' if report.unchanged == 1 else 'were'} there already"
    if done:
        ui.result(f"{', '.join(done).capitalize()}{f'; {there}' if report.unchanged else ''}.")
    elif report.unchanged:
        ui.result(f"Nothing new: {there}.")
    if report.added or report.updated:
        ui.result(f'Next: genret search "what one shows"{option}')
    if report.missing:
        ui.note(f"{_pictures(report.missing)} of these folders {_is(report.missing)} gone; --prune forgets them.")
    for path, reason in report.skipped[:SHOWN]:
        ui.warn(f"skipped: {reason if path in reason else f'{path}: {reason}'}")  # most name the file already
    if len(report.skipped) > SHOWN:
        ui.warn(f"and {len(report.skipped) - SHOWN} more were skipped; --json lists all")
    if not done and not report.unchanged and not report.missing:
        ui.note("Error: nothing could be added or removed.")


def _pictures(count: int) -> str:
    return f"{count:,} picture{'' if count == 1 else 's'}"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"
