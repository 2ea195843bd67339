"""The `genret` program: typer commands, one short file per group, no logic.

Heavy imports stay inside the commands, so that `genret --help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from genret.cli import catalog, evaluate, index, inspect, plugins, search, train
from genret.cli.failures import friendly
from genret.cli.state import State
from genret.plugin.loading import load_plugins
from genret.settings import load_settings

EPILOG = """\
\b
First steps:
  genret train recipes/avg.yaml        train on the pictures of the starter package
  genret search "a happy dog"          ask for pictures in words
  genret index ~/Pictures              add your own pictures and search them at once
  genret evaluate                      how many pictures are found, and where the others are lost
\b
Every command explains itself: genret train --help
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the program and exits: 0 done, 1 it failed, 2 the command or recipe is wrong."""
    given = _split(sys.argv[1:] if argv is None else argv)
    with friendly(given.debug):
        settings = load_settings()
        state = State(settings, load_plugins(given.plugin_files, settings), given.debug)
        state.quiet_libraries()
        app = build(state)
    app(args=given.rest, prog_name="genret")


def build(state: State) -> typer.Typer:
    """The program with the commands of genret and of its plugins."""

    class Program(TyperGroup):
        def invoke(self, ctx: Any) -> Any:
            with friendly(state.debug, lambda: state.run):
                return super().invoke(ctx)

    app = typer.Typer(
        cls=Program,
        name="genret",
        help="Search pictures by words: a language model writes the identifier of the picture.",
        epilog=EPILOG,
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"obj": state, "help_option_names": ["-h", "--help"], "max_content_width": 120},
    )
    app.callback()(_globals)
    for module in (train, search, index, catalog, evaluate, inspect, plugins):
        module.add(app)
    state.plugins.add_commands(app)
    return app


class _Given(NamedTuple):
    plugin_files: list[str]
    debug: bool
    rest: list[str]


def _split(argv: Sequence[str]) -> _Given:
    """Takes out `--plugin FILE` and `--debug`: plugins add commands, so they load before the command is known."""
    files, rest, debug = list[str](), list[str](), False
    words = iter(argv)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word == "--debug":
            debug = True
        elif word.startswith("--plugin="):
            files.append(word.partition("=")[2])
        elif word == "--plugin" and (file := next(words, None)) is not None:
            files.append(file)
        else:
            rest.append(word)
    return _Given(files, debug, rest)


def _version(wanted: bool) -> None:
    if wanted:
        import genret

        typer.echo(f"genret {genret.__version__}")
        raise typer.Exit


def _globals(
    plugin: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Load a one-file plugin. May stand anywhere, several times."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks. May stand anywhere.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """`--plugin` and `--debug` were taken out by `_split`; they are declared here for `--help`."""
