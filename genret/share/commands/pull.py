"""`genret pull`."""

from __future__ import annotations

from typing import Annotated

import typer

from genret.cli.options import JsonOption
from genret.cli.state import state_of


def add(cli: typer.Typer) -> None:
    cli.command("pull", short_help="Fetch a shared run: a folder, an archive, or the hub.")(pull)


def pull(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A folder, a .tar.gz or .zip file, or hub:owner/name[@revision].")
    ],
    name: Annotated[
        str | None,
        typer.Option("--run", metavar="NAME", help="The run's name here. [default: as the source is called]"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch a run that somebody has pushed, into <home>/runs. All of it is checked first; nothing in it can run code.

    \b
    Examples:
      genret pull avg-emoji.tar.gz
      genret pull hub:me/avg-emoji@main --run emoji
    """
    state = state_of(context)
    with state.ui(as_json) as ui:
        from genret.share.pull import pull as pull_run

        done = pull_run(source, name, state.settings, ui)
        if as_json:
            ui.document(done.as_json())
        else:
            pictures = "" if done.thumbnails or not done.images else " Their pictures are not in the bundle."
            at = f" at {done.revision}" if done.revision else ""
            ui.result(
                f"{done.run} is ready ({done.source}{at}). It holds {done.images:,} images.{pictures}\n"
                f'Next:  genret search "what one shows" --run {done.run.name}'
            )
