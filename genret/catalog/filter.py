"""The language of `--where`: which images may be found, by their metadata.

    group = animals and not (name ~ "sea lion" or year < 2020)

    filter      = all { "or" all }
    all         = one { "and" one }
    one         = "not" one | "(" filter ")" | key operator value
    operator    = "=" | "!=" | "<" | "<=" | ">" | ">=" | "~"      (~: contains, whatever the case of ASCII letters)
    key, value  = a word, or any text within single or double quotes, with \\ before a quote that belongs to it

Keys are those of the images' metadata and `split`, `uri` and `image_id`. < <= > >= with a bare number compare numbers,
and a stored text counts by the number it begins with (2020-05-01 is 2020); with anything else they compare text. `null`
stands for a missing value. `!=` and `not` hold for images without the key. The text is compiled to an SQL expression
whose values are bound parameters; nothing of it is ever evaluated.
"""

from __future__ import annotations

import re
from typing import NamedTuple, NoReturn

from sqlalchemy import ColumnElement, Connection, and_, not_, or_, select

from genret.catalog.conditions import COLUMNS, comparison, value_of
from genret.catalog.schema import images
from genret.errors import UnknownName, UsageError

MAX_LENGTH = 2000
MAX_DEPTH = 50
"""Parentheses within parentheses."""

_TOKEN = re.compile(
    r"""\s*(?:(?P<operator><=|>=|!=|==|=|<|>|~)|(?P<bracket>[()])
        |(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<word>[^\s()=!<>~"']+))""",
    re.VERBOSE | re.DOTALL,
)


class _Token(NamedTuple):
    kind: str
    """operator, bracket, quoted, word or end"""
    text: str
    at: int
    """position in the filter, from 1"""


class Compiled(NamedTuple):
    condition: ColumnElement[bool]
    keys: list[str]
    """The metadata keys that the filter names."""

    def check_keys(self, connection: Connection) -> None:
        """`UnknownName` if no image has one of the keys: finding nothing would hide a slip of the pen."""
        if connection.execute(select(images.c.id).limit(1)).first() is None:
            return
        for key in self.keys:
            if connection.execute(select(images.c.id).where(value_of(key).is_not(None)).limit(1)).first() is None:
                sample = connection.execute(select(images.c["metadata"]).limit(1000)).scalars()
                known = {str(name) for facts in sample for name in facts} | set(COLUMNS)
                raise UnknownName("key in --where", key, known)


def compile_filter(text: str) -> Compiled:
    """A filter → a condition on rows of `images`; `UsageError` says where it is wrong."""
    if len(text) > MAX_LENGTH:
        raise UsageError(f"--where is longer than {MAX_LENGTH} characters; make it shorter")
    parser = _Parser(text)
    condition = parser.alternatives(0)
    if parser.next.kind != "end":
        parser.fail("'and', 'or' or the end (values of several words go in quotes)")
    return Compiled(condition, list(dict.fromkeys(parser.keys)))


class _Parser:
    """Recursive descent with one token of look-ahead."""

    def __init__(self, text: str):
        self.text = text
        self.keys: list[str] = []
        self.next = self._token(0)

    def alternatives(self, depth: int) -> ColumnElement[bool]:
        parts = [self.conjunction(depth)]
        while self.accept("word", "or"):
            parts.append(self.conjunction(depth))
        return or_(*parts)

    def conjunction(self, depth: int) -> ColumnElement[bool]:
        parts = [self.one(depth)]
        while self.accept("word", "and"):
            parts.append(self.one(depth))
        return and_(*parts)

    def one(self, depth: int) -> ColumnElement[bool]:
        if depth > MAX_DEPTH:
            self.fail("fewer parentheses and 'not's within one another")
        if self.accept("word", "not"):
            return not_(self.one(depth + 1))
        if self.accept("bracket", "("):
            inside = self.alternatives(depth + 1)
            if not self.accept("bracket", ")"):
                self.fail("')'")
            return inside.self_group()
        return self.comparison()

    def comparison(self) -> ColumnElement[bool]:
        if self.next.kind not in ("word", "quoted") or self.next.text.lower() in ("and", "or"):
            self.fail("a key such as group, split, uri or image_id")
        key = _unquoted(self.next)
        if not key or '"' in key or "\\" in key:
            self.fail("a key without quotes and backslashes in it")
        self.advance()
        if self.next.kind != "operator":
            self.fail("one of = != < <= > >= ~")
        operator = self.next.text
        self.advance()
        if self.next.kind not in ("word", "quoted"):
            self.fail("a value")
        value, bare = _unquoted(self.next), self.next.kind == "word"
        if bare and value.lower() == "null" and operator not in ("=", "==", "!="):
            self.fail("a value other than null")
        self.advance()
        if key not in COLUMNS:
            self.keys.append(key)
        return comparison(key, operator, value, bare)

    def accept(self, kind: str, text: str) -> bool:
        if self.next.kind == kind and self.next.text.lower() == text:
            self.advance()
            return True
        return False

    def advance(self) -> None:
        self.next = self._token(self.next.at - 1 + len(self.next.text))

    def fail(self, expected: str) -> NoReturn:
        found = "it ends" if self.next.kind == "end" else f"stands '{self.next.text}'"
        raise UsageError(f"--where {self.text!r}: at character {self.next.at} {found}, expected {expected}")

    def _token(self, start: int) -> _Token:
        match = _TOKEN.match(self.text, start)
        if match is not None and match.lastgroup is not None:
            return _Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup) + 1)
        rest = self.text[start:]
        at = start + len(rest) - len(rest.lstrip()) + 1
        if not rest.strip():
            return _Token("end", "", at)
        what = (
            "a quote is opened and not closed" if rest.lstrip()[0] in "\"'" else f"'{rest.lstrip()[0]}' means nothing"
        )
        raise UsageError(f"--where {self.text!r}: at character {at} {what}")


def _unquoted(token: _Token) -> str:
    return re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL) if token.kind == "quoted" else token.text
