"""The `genret` program: its frame. The commands come in by a hook (genret/commands and other parts, and plugins).

Heavy imports stay inside the commands, so that `genret --help` is fast.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from genret.cli.failures import forgive, friendly
from genret.cli.options import user_path
from genret.cli.state import State
from genret.errors import UsageError
from genret.plugin.loading import load_plugins
from genret.settings import load_settings

EPILOG = """\
\b
First steps:
  genret train recipes/avg.yaml        train on the pictures of the starter package
  genret search "rainbow"        ask for pictures in words
  genret index ~/Pictures              add your own pictures and search them at once
  genret evaluate                      how many pictures are found, and where the others are lost
\b
Help on a command: genret train --help
"""


ROOM_OF = {
    **dict.fromkeys(("train", "search", "evaluate"), "commands"),
    **dict.fromkeys(("validate", "components", "plugins", "install", "uninstall"), "guide"),
    **dict.fromkeys(("catalog", "compare", "explain", "report", "sweep", "reproduce"), "lab"),
    **dict.fromkeys(("index", "duplicates"), "pictures"),
    "serve": "serve",
    **dict.fromkeys(("push", "pull"), "share"),
}
"""Which of genret's parts beside the core provides a command, for the error if that part is missing."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the program and exits: 0 done, 1 it failed, 2 the command or recipe is wrong."""
    words = list(sys.argv[1:] if argv is None else argv)
    forgive(sys.stdout)
    with friendly("--debug" in words):
        given = _split(words)
        settings = load_settings()
        state = State(settings, load_plugins(given.plugin_files, settings), given.debug)
        state.quiet_libraries()
        build(state)(args=given.rest, prog_name="genret")


def build(state: State) -> typer.Typer:
    """The program with the commands of genret and of its plugins."""

    class Program(TyperGroup):
        def get_command(self, ctx: Any, name: str) -> Any:
            found, room = super().get_command(ctx, name), ROOM_OF.get(name)
            if found is None and room is not None and find_spec(f"genret.{room}") is None:
                raise UsageError(
                    f"'genret {name}' is part of genret/{room}, which is missing here; install genret anew"
                )
            return found

        def invoke(self, ctx: Any) -> Any:
            with friendly(state.debug, lambda: state.run):
                _working_folder()
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
    state.plugins.add_commands(app)
    return app


class _Given(NamedTuple):
    plugin_files: list[Path]
    debug: bool
    rest: list[str]


def _split(argv: Sequence[str]) -> _Given:
    """Takes out `--plugin FILE` and `--debug`: plugins add commands, so they load before the command is known."""
    files, rest, debug = list[Path](), list[str](), False
    words = iter(argv)
    for word in words:
        option, equals, file = word.partition("=")
        if word == "--":
            rest += [word, *words]
        elif word == "--debug":
            debug = True
        elif option == "--plugin":
            if not (file := file if equals else next(words, "")):
                raise UsageError("--plugin needs a file, e.g.: genret --plugin mine.py components")
            files.append(user_path(file))
        else:
            rest.append(word)
    return _Given(files, debug, rest)


def _working_folder() -> None:
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UsageError("the folder that genret was started in has been deleted; change into another one") from None


def _version(wanted: bool) -> None:
    if wanted:
        import genret

        typer.echo(f"genret {genret.__version__}")
        raise typer.Exit


def _globals(
    plugin: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Load a one-file plugin. Allowed anywhere, repeatable."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks. Allowed anywhere.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """`--plugin` and `--debug` were removed by `_split`; they are declared here for `--help`."""
