"""What `genret search` is asked: queries and what each may find, from the command line or from the lines of a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from genret.api import Restriction
from genret.errors import UnknownName, UsageError

WORDS = {"query": "query", "where": "where", "only": "only", "not": "without", "unlike": "unlike"}
"""What a line's object may say, besides `unlike_symbols`, and what a `Restriction` calls it."""


class Asked(NamedTuple):
    query: str
    restriction: Restriction


def checked(query: str, what: str) -> str:
    """Words that can be searched for; `UsageError` if there are none."""
    # a command line may hold bytes that are no text; they must not break the answer's encoding
    query = query.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if not query.strip():
        raise UsageError(f"{what} is empty; say in words what the picture shows")
    return query


def ids(option: str, given: Sequence[str]) -> tuple[str, ...]:
    """Image ids as an option takes them: itself, or `@FILE` for those of a file, one a line."""
    found: list[str] = []
    for one in given:
        found += filter(None, (line.rstrip("\r\n") for line in _text(one[1:], option))) if one[:1] == "@" else [one]
    return tuple(found)


def asked_in(source: str, shared: Restriction) -> Iterator[Asked]:
    """One query a line, `-` for standard input; `shared` restricts all of them."""
    empty = True
    name = "standard input" if source == "-" else source
    for number, line in enumerate(_text(source, "--queries"), 1):
        empty = False
        yield _asked(line.rstrip("\r\n"), f"line {number} of {name}", shared)
    if empty:
        raise UsageError(f"--queries: {name} holds no query")


def _asked(line: str, where: str, shared: Restriction) -> Asked:
    """A line is the query itself, or a JSON object that has one; what else that says stands in for the options."""
    said: Any = None
    if line.startswith("{"):
        with suppress(ValueError, RecursionError):  # words may begin with a brace
            said = json.loads(line)
    if not isinstance(said, dict) or "query" not in said:
        return Asked(checked(line, where), shared)
    parts: dict[str, Any] = {}
    for key, value in said.items():
        if key == "unlike_symbols":
            right, kind = isinstance(value, int) and not isinstance(value, bool) and value >= 1, "a number from 1"
        elif key in ("query", "where"):
            right, kind = isinstance(value, str), "a text"
        elif key in WORDS:
            right, kind = isinstance(value, list) and all(isinstance(one, str) for one in value), "a list of image ids"
        else:
            raise UnknownName(f"key in {where}", key, [*WORDS, "unlike_symbols"])
        if not right:
            raise UsageError(f"{where}: {key} has to be {kind}")
        parts[WORDS.get(str(key), str(key))] = tuple(value) if isinstance(value, list) else value
    query = checked(parts.pop("query"), where)
    return Asked(query, shared._replace(**parts))


def _text(source: str, option: str) -> Iterable[str]:
    name = "standard input" if source == "-" else source
    try:
        if source == "-":
            yield from sys.stdin
        else:
            with Path(source).open(encoding="utf-8-sig") as stream:
                yield from stream
    except UnicodeDecodeError:
        raise UsageError(f"{option}: {name} is no UTF-8 text") from None
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(f"{option}: there is no file {name}") from None
