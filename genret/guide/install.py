"""`genret install`, `genret uninstall`."""

from __future__ import annotations

from typing import Annotated

import typer

from genret.cli.state import state_of
from genret.errors import GenretError, UsageError
from genret.guide.plugins import in_words, registered


def add(cli: typer.Typer) -> None:
    cli.command("install", short_help="Install plugins.")(install)
    cli.command("uninstall", short_help="Remove plugins.")(uninstall)


def install(
    context: typer.Context,
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="PACKAGE_OR_FOLDER", help="A package as pip names it, or a plugin's folder."),
    ] = None,
    editable: Annotated[
        bool, typer.Option("--editable", "-e", help="Install folders in place: changes take effect at once.")
    ] = False,
    upgrade: Annotated[bool, typer.Option("--upgrade", "-U", help="Replace older versions.")] = False,
    missing: Annotated[bool, typer.Option("--missing", help="Also plugins that an earlier environment had.")] = False,
) -> None:
    """Install plugins into the environment that genret runs in, by pip or, where there is none, by uv.

    \b
    Examples:
      genret install genret-fsq
      genret install --editable ./genret-my-scheme
    """
    from genret.guide import installer

    state = state_of(context)
    with state.ui() as ui:
        words = [*(what or []), *(installer.missing_packages(state.settings).values() if missing else [])]
        if not words:
            if missing:
                ui.result("Nothing is missing.")
                return
            raise UsageError("name a package or a folder, e.g.: genret install ./genret-my-scheme")
        things = installer.wanted(words)
        before = {plugin.source for plugin in state.plugins.loaded}
        installer.install(things, ui.note, editable, upgrade)
        now = installer.plugins_now(state.settings)
        packages = {thing.package for thing in things}
        mine = [
            plugin
            for plugin in (*now["plugins"], *now["failures"])
            if installer.package_of_source(plugin["source"]) in packages
            or (None in packages and plugin["source"] not in before)
        ]
        found = {installer.package_of_source(plugin["source"]) for plugin in mine}
        installer.note_installed([thing for thing in things if thing.package in found], state.settings)
        for plugin in mine:
            ui.result(f"{plugin['name']}  {plugin['source']}")
            for line in in_words(plugin.get("registers", {})):
                ui.result(f"  {line}")
            if "reason" in plugin:
                raise GenretError(f"{plugin['name']} is installed, but cannot be used: {plugin['reason']}")
        if not mine:
            raise GenretError(
                f"{', '.join(words)}: installed, but no genret plugin; a plugin names its module in the entry-point "
                "group 'genret'"
            )


def uninstall(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Plugins, or their packages.")],
) -> None:
    """Remove plugins from the environment that genret runs in.

    \b
    Example:
      genret uninstall fsq
    """
    from genret.guide import installer

    state = state_of(context)
    with state.ui() as ui:
        lost = {plugin.source: in_words(registered(state, plugin.name)) for plugin in state.plugins.loaded}
        for package in installer.uninstall(names, state.settings, ui.note):
            gone = [
                line
                for source, lines in lost.items()
                if installer.package_of_source(source) == package
                for line in lines
            ]
            ui.result(f"{package} is removed{'; gone are ' if gone else ''}{'; '.join(gone)}")
