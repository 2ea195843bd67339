"""The commands of the program, a short file each, without logic. A plugin of genret."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genret import hookimpl

if TYPE_CHECKING:
    import typer


@hookimpl
def register_commands(cli: typer.Typer) -> None:
    from genret.commands import evaluate, search, train

    for command in (train, search, evaluate):
        command.add(cli)
