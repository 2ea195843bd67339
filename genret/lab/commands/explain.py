"""`genret explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from genret.cli.options import JsonOption, RunOption
from genret.cli.state import state_of

if TYPE_CHECKING:
    from genret.components.retrievers.explanation import ExplainedLevel

SHOWN = 6
"""Prefixes shown of a level, besides the right one."""


def add(cli: typer.Typer) -> None:
    cli.command("explain", short_help="One search, level by level.")(explain)


def explain(
    context: typer.Context,
    query: Annotated[list[str], typer.Argument(help="What the picture shows, in words.")],
    image: Annotated[
        str | None, typer.Option(metavar="ID", help="Also say where this picture was lost; search prints the ids.")
    ] = None,
    run: RunOption = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many pictures.")] = 10,
    num_beams: Annotated[int | None, typer.Option(min=1, metavar="B", help="Beams of the search.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a search level by level: which prefixes were kept or dropped, by what scores, and where a picture was lost.

    A score is the language model's log-probability plus, in a guided run, the guidance of the query's own vector.

    \b
    Examples:
      genret explain "red heart"
      genret explain "red heart" --image "❤ Noto" --num-beams 5
      genret explain "red heart" --json
    """
    from genret.toolbox.words import query_words

    state = state_of(context)
    words = query_words(" ".join(query), "the query")
    with state.ui(as_json) as ui, state.open(run) as opened:
        told = opened.explain(words, image, num_beams=num_beams, k=k)
        if as_json:
            ui.document(told.as_json())
            return
        for level in told.levels:
            ui.table(as_table(level, guided=told.guidance > 0))
        found = len(told.hits)
        if found:
            ui.result(f"{found} pictures found with {told.num_beams} beams")
        else:
            empty = not len(opened.catalog.searchable_keys())
            ui.result("Nothing found: the catalog has no images to search." if empty else "Nothing found.")
        if image is not None and told.rank is not None:
            ui.result(f"{image}: rank {told.rank}")
        elif image is not None:
            ui.result(f"{image}: not among the first {k}; lost at: {told.lost_at}")


def as_table(level: ExplainedLevel, guided: bool) -> Any:
    """The first prefixes of a level, and the right one."""
    from rich.table import Column, Table
    from rich.text import Text

    scores = ("score", "log-prob", "guidance") if guided else ("log-prob",)
    table = Table(
        "",
        Column("rank", justify="right"),
        "prefix",
        *(Column(name, justify="right") for name in scores),
        Column("pictures", justify="right"),
        "such as",
        title=f"level {level.level}: {level.num_kept:,} of {level.num_candidates:,} prefixes kept",
        title_justify="left",
    )
    kept = [one for one in level.prefixes if one.is_kept][:SHOWN]
    dropped = [one for one in level.prefixes if not one.is_kept][: SHOWN // 2]
    right = [one for one in level.prefixes if one.is_right and one not in kept + dropped]
    for one in sorted(kept + dropped + right, key=lambda prefix: prefix.rank):
        values = (one.score, one.log_prob, one.guidance) if guided else (one.log_prob,)
        table.add_row(
            "→" if one.is_right else "" if one.is_kept else "✗",
            str(one.rank),
            Text(" ".join(one.symbols)),
            *(f"{value:.2f}" for value in values),
            f"{one.num_images:,}",
            Text(", ".join(one.image_ids[:2])),
            style="" if one.is_kept else "dim",
        )
    return table
