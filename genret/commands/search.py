"""`genret search`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genret.cli.options import JsonOption, RunOption, user_path
from genret.cli.state import state_of
from genret.errors import UsageError
from genret.kit.text import clean
from genret.toolbox.names import name_of

if TYPE_CHECKING:
    from genret.api import SearchResult
    from genret.commands.queries import QueryLine

QUERIES_AT_A_TIME = 256
SHOWN_SYMBOLS = 8


class SortBy(StrEnum):
    score = "score"
    date = "date"
    name = "name"


def add(cli: typer.Typer) -> None:
    cli.command("search", short_help="Find pictures by words.")(search)


def search(
    context: typer.Context,
    query: Annotated[list[str] | None, typer.Argument(help="What the picture shows, in words.")] = None,
    image: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=user_path, help="A picture to be similar to; words may be added."),
    ] = None,
    like: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="More like this picture, or those of @FILE. Repeatable.")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="WORDS", help="What must not be seen, as -WORD in the query. Repeatable."),
    ] = None,
    run: RunOption = None,
    k: Annotated[int, typer.Option("-k", min=0, help="How many pictures.")] = 10,
    num_beams: Annotated[
        int | None, typer.Option(min=1, metavar="B", help="Beams of the search; more is slower and finds more.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(metavar="FILTER", help="Only pictures whose metadata fits, e.g. group=animals.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Only this picture, or those of @FILE. Repeatable.")
    ] = None,
    left_out: Annotated[
        list[str] | None, typer.Option("--not", metavar="ID", help="Not this picture, or those of @FILE. Repeatable.")
    ] = None,
    unlike: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Not this picture, nor similar ones. Repeatable.")
    ] = None,
    unlike_symbols: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of first codes that similar pictures share, for --unlike.")
    ] = 2,
    queries: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="One query per line, '-' for standard input; answers in JSON lines."),
    ] = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="P", help="Report no match if the confidence is below this."),
    ] = None,
    min_score: Annotated[float | None, typer.Option(metavar="S", help="Leave out hits of a lower score.")] = None,
    sort: Annotated[SortBy, typer.Option(help="The order in which the hits are shown.")] = SortBy.score,
    show: Annotated[bool, typer.Option("--show", help="Draw what is found: kitty, iTerm2, sixel terminals.")] = False,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=user_path, help="Write what is found into a .png file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find pictures by words, by a picture, or both. A word after a hyphen must not be seen; \\- is a mere hyphen.

    \b
    Examples:
      genret search "roller coaster"
      genret search "pancakes" -k 3 --json
      genret search --queries queries.txt > answers.jsonl
      genret search "rocket" --run my-run --num-beams 50
      genret search "telescope" --where "name ~ scope" --unlike cars/17.jpg
      genret search "a submarine" --min-confidence 0.5
      genret search "a dog -beach"
      genret search "in the snow" --image dog.jpg
      genret search "pancakes" -k 24 --sheet pancakes.png

    \b
    Next: genret index FOLDER adds your own pictures; genret evaluate measures how many are found.
    """
    from genret.api import Query, Restriction
    from genret.commands.queries import QueryLine, ids, read_queries
    from genret.share.gallery import Gallery
    from genret.toolbox.words import query_words

    state = state_of(context)
    if min_score is not None and math.isnan(min_score):
        raise UsageError("--min-score nan is no number that a score could reach")
    asks = bool(query or image or like)
    if asks == (queries is not None):
        raise UsageError('ask for something: genret search "roller coaster", or --queries FILE (not both)')
    if show and (as_json or queries is not None):
        raise UsageError("--show draws for people; leave out --json and --queries, or use --sheet FILE")
    restriction = Restriction(
        where or "",
        None if only is None else ids("--only", only),
        ids("--not", left_out or ()),
        ids("--unlike", unlike or ()),
        unlike_symbols,
    )
    one = list[QueryLine]()
    if asks:
        typed = Query.parsed(query_words(" ".join(query), "the query")) if query else None
        more = (*(typed.without if typed else ()), *(without or ()))
        text = typed.text if typed else ""
        whole = Query(text=text, image=image, without=more, like=ids("--like", like or ()))
        one = [QueryLine(whole if more or whole.has_picture else text, restriction)]
    with state.ui(as_json or queries is not None) as ui, state.open(run) as opened:
        gallery = Gallery(opened, show, sheet, ui) if show or sheet else None
        asked = iter(one) if queries is None else read_queries(queries, restriction)
        first = list(islice(asked, QUERIES_AT_A_TIME))  # read before the model is loaded, so that errors show at once
        for batch in _then(first, asked):
            texts, restrict = [question.query for question in batch], [question.restriction for question in batch]
            found = opened.search(texts, k, num_beams=num_beams, restrict=restrict, min_confidence=min_confidence)
            for result in found:
                result = arranged(result, sort, min_score)
                if gallery:
                    gallery.add(result)
                if ui.json:
                    ui.document(as_document(result))
                    continue
                if result.note:
                    ui.note(f"Note: {result.note}.")
                if result.hits:
                    ui.table(as_table(result))
                elif (sure := result.confidence or 0) < (min_confidence or 0):
                    ui.note(f"Nothing matches: confidence {sure:.2f} is below {min_confidence:g}.")
                elif k:
                    some = len(opened.retriever.catalog.searchable_keys())
                    ui.note("Nothing found." if some else "Nothing found: the catalog has no images to search.")
        if gallery:
            gallery.close()


def arranged(result: SearchResult, sort: SortBy, min_score: float | None) -> SearchResult:
    """Hits of at least this score; ranks stay those of the search, whatever the order."""
    hits = [hit for hit in result.hits if min_score is None or hit.score >= min_score]
    if sort is SortBy.name:
        hits.sort(key=lambda hit: name_of(hit).casefold())
    elif sort is SortBy.date:  # the newest first, those without a date last
        hits.sort(key=lambda hit: str(hit.metadata.get("taken") or hit.metadata.get("modified") or ""), reverse=True)
    return result._replace(hits=hits)


def as_document(result: SearchResult) -> dict[str, Any]:
    """The documented JSON of one query."""
    return {
        "query": result.query,
        "hits": [
            {key: getattr(hit, key) for key in ("rank", "image_id", "uri", "score", "identifier")}
            | ({"missing": True} if hit.missing else {})
            for hit in result.hits
        ],
        "num_beams": result.num_beams,
        "elapsed_ms": result.elapsed_ms,
        "confidence": result.confidence,
    } | ({"note": result.note} if result.note else {})


def as_table(result: SearchResult) -> Any:
    """Rank, score, the emoji if there is one, name, path and identifier; of a long one the first codes."""
    from rich.table import Column, Table
    from rich.text import Text

    has_emoji = any(hit.metadata.get("emoji") for hit in result.hits)
    table = Table(
        Column(justify="right"),
        Column(justify="right", style="cyan"),
        *([Column()] if has_emoji else []),
        Column(style="bold", overflow="fold"),
        Column(overflow="fold"),
        Column(style="dim", overflow="fold"),
        box=None, pad_edge=False, show_header=False,
    )  # fmt: skip
    for hit in result.hits:
        symbols = hit.identifier or []
        more = len(symbols) - SHOWN_SYMBOLS
        identifier = " ".join(symbols[:SHOWN_SYMBOLS]) + (f" +{more}" if more > 0 else "")
        shown = [hit.metadata.get("emoji", "")] if has_emoji else []
        shown += [name_of(hit), f"{hit.uri} (gone)" if hit.missing else hit.uri, identifier]
        table.add_row(str(hit.rank), f"{hit.score:.3f}", *(Text(clean(one)) for one in shown))
    return table


def _then(first: list[QueryLine], asked: Iterator[QueryLine]) -> Iterator[list[QueryLine]]:
    yield first
    while batch := list(islice(asked, QUERIES_AT_A_TIME)):
        yield batch
