"""People's own folders of pictures: indexed, kept in step, watched; metadata; copies. A plugin of genret."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genret import hookimpl
from genret.plugin.hookspecs import RegisterFunction

if TYPE_CHECKING:
    import typer


@hookimpl
def register_functions(register: RegisterFunction) -> None:
    register("search", "genret.pictures.queries:search")
    """(run, queries, k, options) → results; what `Run.search` does with a `Query`"""
    register("index", "genret.pictures.sync:index")
    """(run, paths, ui, further options) → IndexReport; the function behind `Run.index`"""
    register("remove", "genret.pictures.sync:remove")
    """(run, ids, files or folders) → IndexReport; the function behind `Run.remove`"""
    register("prune", "genret.pictures.sync:prune")
    """(run, folders) → IndexReport; the function behind `Run.prune`"""


@hookimpl
def register_commands(cli: typer.Typer) -> None:
    from genret.pictures import duplicates_command, index_command

    for command in (index_command, duplicates_command):
        command.add(cli)
