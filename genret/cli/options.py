"""Options that several commands share, and the parsing of paths."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer


def user_path(text: str | Path) -> Path:
    """Expands `~/x` to the home folder, for every option that takes a path: shells do not expand `--run=~/x`."""
    with suppress(RuntimeError):  # `~unknown` is an ordinary name
        return Path(text).expanduser()
    return Path(text)


RunOption = Annotated[
    Path | None,
    typer.Option(
        "--run",
        metavar="DIR",
        parser=user_path,
        help="A run's folder, or its name in <home>/runs. [default: the newest finished one in <home>/runs]",
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
