"""Options that several commands share, and what a path may look like."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer


def user_path(text: str | Path) -> Path:
    """`~/x` below the home folder, as `parser` of every option that takes a path: shells leave `--run=~/x` alone."""
    with suppress(RuntimeError):  # `~nobody`: a name like any other
        return Path(text).expanduser()
    return Path(text)


RunOption = Annotated[
    Path | None,
    typer.Option(
        "--run",
        metavar="DIR",
        parser=user_path,
        help="Run directory, or its name in <home>/runs. [default: newest finished]",
    ),
]
RecipeFiles = Annotated[
    list[Path], typer.Argument(metavar="RECIPE", parser=user_path, help="Recipe files, as for train.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe's option, e.g. train.epochs=3. Repeatable."),
]
