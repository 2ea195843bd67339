"""`genret catalog`."""

from __future__ import annotations

from typing import Annotated

import typer

from genret.cli.options import JsonOption, RunOption
from genret.cli.state import state_of
from genret.errors import UsageError


def add(cli: typer.Typer) -> None:
    cli.command("catalog", short_help="Say where a run's catalog is, or move it to another database.")(catalog)


def catalog(
    context: typer.Context,
    run: RunOption = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Move it there: the SQLAlchemy URL of an empty database, e.g. PostgreSQL."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say where a run's catalog is and what it holds, or move it to another database.

    A catalog is a SQLite file in the run directory unless it was moved. Put passwords into the database's own files,
    such as ~/.pgpass, not into the URL, which is stored in the run directory.

    \b
    Examples:
      genret catalog
      genret catalog --run mine --to postgresql://me@db.example.org/pictures
    """
    from genret.folders import finished_run

    state = state_of(context)
    if to is not None and "://" not in to:
        raise UsageError(f"--to {to} is no URL; write e.g. postgresql://me@localhost/pictures")
    folder = finished_run(run, state.settings)
    with state.ui(as_json) as ui:
        from genret.catalog.place import place_of
        from genret.catalog.store import Catalog
        from genret.lab.move import move_catalog
        from genret.shell.migrate import upgrade

        if to is not None:
            move_catalog(folder, to)
        with Catalog.open(place_of(folder), upgrade=upgrade) as opened, opened.snapshot() as view:
            facts = {
                "run": str(folder),
                "catalog": opened.name,
                "images": view.image_count(),
                "searchable": view.image_count(searchable=True),
                "version": view.version,
            }
        if as_json:
            ui.document(facts)
        else:
            ui.result(f"{facts['catalog']}: {facts['images']} pictures, {facts['searchable']} of them searched")
            if to is not None:
                ui.note("The SQLite file stays as it was, as catalog.moved.sqlite; delete it when you like.")
