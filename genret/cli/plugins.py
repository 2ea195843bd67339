"""`genret plugins`, `genret plugins new`, `genret install`, `genret uninstall`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from genret.cli.options import JsonOption
from genret.cli.state import State, state_of
from genret.errors import GenretError, UsageError


def add(cli: typer.Typer) -> None:
    group = typer.Typer(rich_markup_mode=None)
    group.callback(invoke_without_command=True)(plugins)
    group.command("new", short_help="Write a plugin to start from.")(new)
    cli.add_typer(group, name="plugins", short_help="Show plugins, and what failed and why; begin a new one.")
    cli.command("install", short_help="Install plugins.")(install)
    cli.command("uninstall", short_help="Remove plugins.")(uninstall)


def plugins(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show what is installed besides genret itself, and what failed to load and why.

    Plugins are installed packages (genret install), files in <home>/plugins and files given by --plugin.
    GENRET_PLUGINS="" switches the found ones off; GENRET_PLUGINS=a,b leaves only a and b.
    """
    if context.invoked_subcommand is not None:
        return
    from genret.share.installer import missing_packages

    state = state_of(context)
    with state.ui(as_json) as ui:
        missing = missing_packages(state.settings)
        if as_json:
            ui.document(_plugins_json(state) | {"missing": missing})
            return
        for plugin in state.plugins.loaded:
            ui.result(f"{plugin.name}  {plugin.source}")
            for line in _registered(state, plugin.name):
                ui.result(f"  {line}")
        for failure in state.plugins.failures:
            ui.result(f"{failure.name}  {failure.source}\n  FAILED: {failure.reason}")
            if failure.unforeseen or state.debug:
                ui.result("".join(f"    {line}\n" for line in failure.traceback.splitlines()).rstrip())
        for package, requirement in missing.items():
            ui.result(f"{package}  MISSING: it was installed from {requirement}, but not in this environment")
        if missing:
            ui.note("Give this environment what it lacks: genret install --missing")


def new(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What recipes will call the component, e.g. my-scheme.")],
    kind: Annotated[str, typer.Option(metavar="KIND", help="identifier, loss, reranker, dataset, encoder, backbone")],
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Where the project's folder goes.")] = Path(),
) -> None:
    """Write a plugin to start from: it can be installed as it is, and its tests pass.

    \b
    Examples:
      genret plugins new my-scheme --kind identifier
      genret install --editable ./genret-my-scheme
    """
    from genret.cli.describe import kind_named
    from genret.testing.scaffold import new_plugin

    state = state_of(context)
    with state.ui() as ui:
        root = new_plugin(name, kind_named(kind), folder, state.registries)
        ui.result(
            f"{root} is a plugin with one {kind_named(kind)}, which works already. Next:\n"
            f"  genret install --editable {root if root.is_absolute() else f'./{root}'}\n"
            f"  pytest {root}/tests\n"
            f"  genret components {kind_named(kind)} {root.name.removeprefix('genret-')}"
        )


def install(
    context: typer.Context,
    what: Annotated[
        list[str] | None, typer.Argument(metavar="PACKAGE_OR_FOLDER", help="As pip names it, or a plugin's folder.")
    ] = None,
    editable: Annotated[
        bool, typer.Option("--editable", "-e", help="Folders are used where they lie: changes take effect at once.")
    ] = False,
    upgrade: Annotated[bool, typer.Option("--upgrade", "-U", help="Replace older versions.")] = False,
    missing: Annotated[
        bool, typer.Option("--missing", help="Also what was installed once, in an environment that is gone.")
    ] = False,
) -> None:
    """Install plugins into the environment that genret runs in, by pip or, where there is none, by uv.

    \b
    Examples:
      genret install genret-fsq
      genret install --editable ./genret-my-scheme
    """
    from genret.share import installer

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
            for kind, names in plugin.get("registers", {}).items():
                if names:
                    ui.result(f"  {kind}: {', '.join(names)}")
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
    from genret.share import installer

    state = state_of(context)
    with state.ui() as ui:
        lost = {plugin.source: _registered(state, plugin.name) for plugin in state.plugins.loaded}
        for package in installer.uninstall(names, state.settings, ui.note):
            gone = [
                line
                for source, lines in lost.items()
                if installer.package_of_source(source) == package
                for line in lines
            ]
            ui.result(f"{package} is removed{'; gone are ' if gone else ''}{'; '.join(gone)}")


def _registered(state: State, plugin: str) -> list[str]:
    found = []
    for registry in state.registries.all():
        if mine := [name for name in registry if registry.origin(name) == plugin]:
            found.append(f"{registry.kind}: {', '.join(mine)}")
    return found


def _plugins_json(state: State) -> dict[str, Any]:
    return {
        "plugins": [
            {
                "name": plugin.name,
                "source": plugin.source,
                "hooks": list(plugin.hooks),
                "registers": {
                    registry.kind: [name for name in registry if registry.origin(name) == plugin.name]
                    for registry in state.registries.all()
                },
            }
            for plugin in state.plugins.loaded
        ],
        "failures": [failure._asdict() for failure in state.plugins.failures],
    }
