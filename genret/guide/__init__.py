"""Help at the terminal and installation of plugins: validate, components, plugins, install. A plugin of genret."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genret import hookimpl

if TYPE_CHECKING:
    import typer


@hookimpl
def register_commands(cli: typer.Typer) -> None:
    from genret.guide import components, install, plugins, validate
    from genret.guide.doctor import command as doctor

    for command in (validate, components, plugins, install, doctor):
        command.add(cli)
