"""Help at the terminal: demo, doctor, validate, components, plugins and their installation. A plugin of genret."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genret import hookimpl

if TYPE_CHECKING:
    import typer


@hookimpl
def register_commands(cli: typer.Typer) -> None:
    from genret.guide import components, demo, install, plugins, validate
    from genret.guide.doctor import command as doctor

    for command in (validate, components, plugins, install, demo, doctor):
        command.add(cli)
