"""The queries of `genret search` and their restrictions, from the command line or from the lines of a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from genret.api import Query, Restriction
from genret.cli.options import user_path
from genret.errors import UnknownName, UsageError
from genret.toolbox.words import query_words

_TEXT, _IDS, _COUNT = "a text", "a list of image ids", "a number from 1"
_WORDS = "a list of texts"
ASKED = {"query": _TEXT, "image": _TEXT, "without": _WORDS, "like": _IDS}
KINDS = ASKED | {"where": _TEXT, "only": _IDS, "not": _IDS, "unlike": _IDS, "unlike_symbols": _COUNT}
"""The keys of a line's object, and the type of each."""
MAX_LINE = 1_000_000
"""Characters of a line: more is no query, and no list of ids."""
MAX_IDS = 5_000_000


class QueryLine(NamedTuple):
    query: str | Query
    restriction: Restriction


def ids(option: str, given: Sequence[str]) -> tuple[str, ...]:
    """Image ids from an option: an id, or `@FILE` with one id per line."""
    found: list[str] = []
    for one in given:
        found += islice(filter(None, _lines(one[1:], option)), MAX_IDS + 1) if one[:1] == "@" else [one]
        if len(found) > MAX_IDS:
            raise UsageError(f"{option} {one}: more than {MAX_IDS:,} ids; a filter, --where, can select many images")
    return tuple(found)


def read_queries(source: str, shared: Restriction) -> Iterator[QueryLine]:
    """One query per line, `-` for standard input; `shared` restricts all of them. Empty lines are ignored."""
    empty = True
    name = "standard input" if source == "-" else source
    for number, line in enumerate(_lines(source, "--queries"), 1):
        if line.strip():
            empty = False
            yield _asked(line, f"line {number} of {name}", shared)
    if empty:
        raise UsageError(f"--queries: {name} holds no query")


def _asked(line: str, where: str, shared: Restriction) -> QueryLine:
    """A line is the query itself, or a JSON object that asks for something; other keys override the options."""
    said: Any = None
    if line.startswith("{"):
        with suppress(ValueError, RecursionError):  # a query may begin with a brace
            said = json.loads(line)
    if not isinstance(said, dict) or not {"query", "image", "like"} & said.keys():
        return QueryLine(query_words(line, where), shared)
    parts: dict[str, Any] = {}
    asked: dict[str, Any] = {}
    for key, value in said.items():
        if key not in KINDS:
            raise UnknownName(f"key in {where}", key, KINDS)
        if not _fits(value, KINDS[key]):
            raise UsageError(f"{where}: {key} has to be {KINDS[key]}")
        name = {"query": "text", "not": "without"}.get(str(key), str(key))
        (asked if key in ASKED else parts)[name] = tuple(value) if isinstance(value, list) else value
    if "text" in asked:
        asked["text"] = query_words(asked["text"], where)
    if "image" in asked:
        asked["image"] = user_path(asked["image"])
    return QueryLine(asked["text"] if asked.keys() == {"text"} else Query(**asked), shared._replace(**parts))


def _fits(value: Any, kind: str) -> bool:
    if kind in (_IDS, _WORDS):
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    return isinstance(value, str) if kind == _TEXT else type(value) is int and value >= 1


def _lines(source: str, option: str) -> Iterator[str]:
    """Lines without their ends, and without a byte order mark before the first."""
    name = "standard input" if source == "-" else source
    try:
        with nullcontext(sys.stdin) if source == "-" else user_path(source).open(encoding="utf-8") as stream:
            for number, line in enumerate(iter(partial(stream.readline, MAX_LINE), ""), 1):
                if len(line) == MAX_LINE or "\0" in line:
                    raise UsageError(f"{option}: line {number} of {name} is too long or no text; give one item a line")
                yield line.rstrip("\r\n").removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise UsageError(f"{option}: {name} is no UTF-8 text") from None
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(f"{option}: there is no file {name}") from None
