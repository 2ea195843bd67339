"""`genret search`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genret.cli.options import JsonOption, RunOption
from genret.cli.state import state_of
from genret.errors import UsageError

if TYPE_CHECKING:
    from genret.interfaces import Hit, SearchResult

QUERIES_AT_A_TIME = 256


def add(cli: typer.Typer) -> None:
    cli.command("search", short_help="Find pictures by words.")(search)


def search(
    context: typer.Context,
    query: Annotated[str | None, typer.Argument(help="What the picture shows, in words.")] = None,
    run: RunOption = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many pictures.")] = 10,
    num_beams: Annotated[
        int | None, typer.Option(min=1, metavar="B", help="Beams of the search; more is slower and finds more.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(metavar="FILTER", help="Only pictures whose metadata fits, e.g. group=animals.")
    ] = None,
    queries: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="One query per line, '-' for standard input; answers in JSON lines."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find pictures by words.

    \b
    Examples:
      genret search "a happy dog"
      genret search "a red car" -k 3 --json
      genret search --queries queries.txt > answers.jsonl
      genret search "a red car" --run my-run --num-beams 50
    \b
    Next: genret index FOLDER adds your own pictures; genret evaluate measures how many are found.
    """
    from genret.cli.runs import finished_run

    state = state_of(context)
    if (query is None) == (queries is None):
        raise UsageError('ask for something: genret search "a happy dog", or --queries FILE (not both)')
    texts = [_checked(query, "the query")] if query is not None else None
    folder = finished_run(run, state.settings)
    with state.ui(as_json or queries is not None) as ui:
        from genret.assemble import open_retriever

        lines = None if queries is None else _lines(queries)
        first = texts or list(
            islice(lines or (), QUERIES_AT_A_TIME)
        )  # read before the model loads: faults show at once
        retriever = open_retriever(folder, state.registries, state.settings)
        for batch in _then(first, lines):
            for result in retriever.search(batch, k, num_beams=num_beams, where=where):
                if ui.json:
                    ui.document(as_document(result))
                elif result.hits:
                    ui.table(as_table(result))
                else:
                    ui.note("Nothing found.")


def as_document(result: SearchResult) -> dict[str, Any]:
    """The contract's JSON of one query."""
    return {
        "query": result.query,
        "hits": [
            {
                "rank": hit.rank,
                "image_id": hit.image_id,
                "uri": hit.uri,
                "score": hit.score,
                "identifier": hit.identifier,
            }
            for hit in result.hits
        ],
        "num_beams": result.num_beams,
        "elapsed_ms": result.elapsed_ms,
    }


def as_table(result: SearchResult) -> Any:
    """Rank, score, the emoji where there is one, name, path and identifier."""
    from rich.table import Table
    from rich.text import Text

    from genret.cli.ui import plain

    has_emoji = any(hit.metadata.get("emoji") for hit in result.hits)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right")
    table.add_column(justify="right", style="cyan")
    if has_emoji:
        table.add_column()
    table.add_column(style="bold", overflow="fold")
    table.add_column(overflow="fold")
    table.add_column(style="dim", overflow="fold")
    for hit in result.hits:
        emoji = [Text(plain(hit.metadata.get("emoji", "")))] if has_emoji else []
        identifier = Text(" ".join(plain(symbol) for symbol in hit.identifier or ()))
        table.add_row(
            str(hit.rank), f"{hit.score:.3f}", *emoji, Text(plain(name_of(hit))), Text(plain(hit.uri)), identifier
        )
    return table


def name_of(hit: Hit) -> str:
    """What people would call the picture: a name or caption among its metadata, else its file's name."""
    for key in ("name", "title", "caption"):
        if value := hit.metadata.get(key):
            return str(value)
    return PurePosixPath(hit.uri.replace("\\", "/").rpartition(":")[2]).stem or hit.image_id


def _checked(query: str, what: str) -> str:
    # a command line may hold bytes that are no text; they must not break the answer's encoding
    query = query.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if not query.strip():
        raise UsageError(f"{what} is empty; say in words what the picture shows")
    return query


def _lines(source: str) -> Iterator[str]:
    name = "standard input" if source == "-" else source
    try:
        if source == "-":
            yield from _numbered(sys.stdin, name)
        else:
            with Path(source).open(encoding="utf-8-sig") as stream:
                yield from _numbered(stream, name)
    except UnicodeDecodeError:
        raise UsageError(f"--queries: {name} is no UTF-8 text") from None
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(f"--queries: there is no file {name}") from None


def _numbered(stream: Iterable[str], name: str) -> Iterator[str]:
    empty = True
    for number, line in enumerate(stream, 1):
        empty = False
        yield _checked(line.rstrip("\r\n"), f"line {number} of {name}")
    if empty:
        raise UsageError(f"--queries: {name} holds no query")


def _then(first: list[str], lines: Iterator[str] | None) -> Iterator[list[str]]:
    yield first
    while lines is not None and (batch := list(islice(lines, QUERIES_AT_A_TIME))):
        yield batch
