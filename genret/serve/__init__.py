"""The API and the page over one finished run (extra `serve`). A plugin of genret."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genret import hookimpl

if TYPE_CHECKING:
    import typer


@hookimpl
def register_commands(cli: typer.Typer) -> None:
    from genret.serve import command

    command.add(cli)
