"""`genret push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genret.cli.options import JsonOption, user_path
from genret.cli.state import state_of


def add(cli: typer.Typer) -> None:
    cli.command("push", short_help="Share a run: a folder, an archive, or the hub.")(push)


def push(
    context: typer.Context,
    run: Annotated[
        Path, typer.Argument(metavar="RUN", parser=user_path, help="Run directory, or its name in <home>/runs.")
    ],
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="A new folder, a .tar.gz or .zip file, or hub:owner/name.")
    ],
    catalog: Annotated[
        bool,
        typer.Option(
            "--catalog/--no-catalog", help="With the data set's images as ids, identifiers, vectors, captions."
        ),
    ] = True,
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails", help="With small copies of the pictures. May you pass them on?")
    ] = False,
    added: Annotated[bool, typer.Option("--added", help="With the images that `genret index` added.")] = False,
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository on the hub public. [default: private]")
    ] = False,
    licence: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="Of the model, for its card, e.g. apache-2.0.")
    ] = None,
    data_licence: Annotated[
        str | None, typer.Option("--data-license", metavar="TEXT", help="Of the training data, for the card.")
    ] = None,
    weights_licence: Annotated[
        str | None, typer.Option("--weights-license", metavar="TEXT", help="Of the pretrained weights, for the card.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Share a finished run with a model card, so that others can search and measure it.

    \b
    Examples:
      genret push avg-1 avg-emoji.tar.gz
      genret push avg-1 hub:me/avg-emoji --license apache-2.0
      genret push avg-1 shared/avg-emoji --thumbnails

    \b
    The other side: genret pull avg-emoji.tar.gz, or genret.load("hub:me/avg-emoji")
    """
    state = state_of(context)
    with state.ui(as_json) as ui, state.open(run) as opened:
        from genret.share.bundle import What
        from genret.share.card import Licences
        from genret.share.push import push as push_run

        what = What(catalog, added, thumbnails, Licences(licence, data_licence, weights_licence))
        done = push_run(opened, target, what, ui, public)
        if as_json:
            ui.document(done.as_json())
        else:
            images = "without a catalog" if done.images is None else f"{done.images:,} images"
            ui.result(f"{done.target}: {done.files:,} files, {done.bytes / 1e6:.1f} MB, {images}")
