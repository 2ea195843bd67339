"""`genret duplicates`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from genret.cli.options import JsonOption, RunOption
from genret.cli.state import state_of
from genret.kit.text import clean


def add(cli: typer.Typer) -> None:
    cli.command("duplicates", short_help="Find copies among the pictures.")(duplicates)


def duplicates(
    context: typer.Context,
    run: RunOption = None,
    near: Annotated[
        float | None, typer.Option(min=0, max=1, metavar="S", help="How alike pictures are that look the same. [0.97]")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find pictures whose files are equal, and pictures that look the same at another size or quality.

    \b
    Examples:
      genret duplicates
      genret duplicates --json > copies.json

    \b
    Next: genret index --remove FILE forgets one; the file itself stays.
    """
    from genret.pictures.duplicates import NEAR, find_copies

    state = state_of(context)
    with state.ui(as_json) as ui, state.open(run) as opened:
        found = find_copies(opened, ui.progress, NEAR if near is None else near)
        if ui.json:
            exact = [[_shown(row) for row in rows] for rows in found.exact]
            alike = [
                {"images": [_shown(pair.first), _shown(pair.second)], "similarity": pair.similarity}
                for pair in found.near
            ]
            ui.document({"exact": exact, "near": alike})
            return
        for rows in found.exact:
            ui.result(clean("equal: " + "  ".join(row.uri for row in rows)))
        for pair in found.near:
            ui.result(clean(f"alike ({pair.similarity:.3f}): {pair.first.uri}  {pair.second.uri}"))
        if not (found.exact or found.near):
            ui.note("No two pictures are equal or look the same.")


def _shown(row: Any) -> dict[str, str]:
    return {"image_id": row.image_id, "uri": row.uri}
