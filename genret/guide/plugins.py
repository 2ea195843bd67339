"""`genret plugins`, `genret plugins new`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genret.cli.options import JsonOption, user_path
from genret.cli.state import State, state_of
from genret.errors import UsageError
from genret.plugin.registry import KINDS


def add(cli: typer.Typer) -> None:
    group = typer.Typer(rich_markup_mode=None)
    group.callback(invoke_without_command=True)(plugins)
    group.command("new", short_help="Write a plugin to start from.")(new)
    cli.add_typer(group, name="plugins", short_help="Show plugins, and what failed and why; create a new one.")


def plugins(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show what is installed besides genret itself, and what failed to load and why.

    Plugins are installed packages (genret install), files in <home>/plugins and files given by --plugin.
    GENRET_PLUGINS="" switches the found ones off; GENRET_PLUGINS=a,b leaves only a and b.
    """
    if context.invoked_subcommand is not None:
        return
    from genret.guide.installer import missing_packages

    state = state_of(context)
    with state.ui(as_json) as ui:
        loaded, failures, missing = state.plugins.loaded, state.plugins.failures, missing_packages(state.settings)
        if as_json:
            ui.document({
                "plugins": [
                    plugin._asdict() | {"hooks": list(plugin.hooks), "registers": registered(state, plugin.name)}
                    for plugin in loaded
                ],
                "failures": [failure._asdict() for failure in failures],
                "missing": missing,
            })  # fmt: skip
            return
        for plugin in loaded:
            ui.result(f"{plugin.name}  {plugin.source}")
            for line in in_words(registered(state, plugin.name)):
                ui.result(f"  {line}")
        for failure in failures:
            ui.result(f"{failure.name}  {failure.source}\n  FAILED: {failure.reason}")
            if failure.unforeseen or state.debug:
                ui.result("".join(f"    {line}\n" for line in failure.traceback.splitlines()).rstrip())
        for package, requirement in missing.items():
            ui.result(f"{package}  MISSING: it was installed from {requirement}, but not in this environment")
        if missing:
            ui.note("Give this environment what it lacks: genret install --missing")


def new(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The component's name in recipes, e.g. my-scheme.")],
    kind: Annotated[str, typer.Option(metavar="KIND", help=", ".join(KINDS))],
    folder: Annotated[
        Path, typer.Option(metavar="DIR", parser=user_path, help="Parent folder of the project.")
    ] = Path(),
) -> None:
    """Write a plugin to start from: it can be installed as it is, and its tests pass.

    \b
    Examples:
      genret plugins new my-scheme --kind identifier
      genret install --editable ./genret-my-scheme
    """
    from genret.guide.describe import kind_named

    try:
        from genret.testing.scaffold import new_plugin
    except ModuleNotFoundError as error:
        if error.name not in ("genret.testing", "genret.testing.scaffold"):
            raise
        raise UsageError("plugins are written from genret/testing, which is not here; install genret anew") from None

    state = state_of(context)
    with state.ui() as ui:
        kind = kind_named(kind)
        root = new_plugin(name, kind, folder, state.registries)
        ui.result(
            f"{root} is a plugin with one {kind}, which works already. Next:\n"
            f"  genret install --editable {root if root.is_absolute() else f'./{root}'}\n"
            f"  pytest {root}/tests\n"
            f"  genret components {kind} {root.name.removeprefix('genret-')}"
        )


def registered(state: State, plugin: str) -> dict[str, list[str]]:
    """The names that a plugin has registered, by kind."""
    return {
        registry.kind: [name for name in registry if registry.origin(name) == plugin]
        for registry in state.registries.all()
    }


def in_words(registers: dict[str, list[str]]) -> list[str]:
    return [f"{kind}: {', '.join(names)}" for kind, names in registers.items() if names]
