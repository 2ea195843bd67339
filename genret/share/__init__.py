"""Sharing finished runs: push, pull, model cards. A plugin of genret."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genret import hookimpl

if TYPE_CHECKING:
    import typer


@hookimpl
def register_commands(cli: typer.Typer) -> None:
    from genret.share.commands import pull, push

    for command in (push, pull):
        command.add(cli)
