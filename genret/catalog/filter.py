"""The language of `--where`: filters images by their metadata.

    group = animals and not (name ~ "sea lion" or year < 2020)

    filter      = all { "or" all }
    all         = one { "and" one }
    one         = "not" one | "(" filter ")" | key operator value
    operator    = "=" | "!=" | "<" | "<=" | ">" | ">=" | "~"      (~: contains, ignoring the case of ASCII letters)
    key, value  = a word, or any text within single or double quotes, with \\ before a quote that belongs to it

Keys are those of the images' metadata and `split`, `uri` and `image_id`. < <= > >= with a bare number compare numbers,
and a stored text counts by the number it begins with (2020-05-01 is 2020); with anything else they compare text. `null`
stands for a missing value. `!=` and `not` hold for images without the key. The text is compiled to an SQL expression
whose values are bound parameters; nothing of it is ever evaluated. It means the same in every database.
"""

from __future__ import annotations

import operator
import re
from typing import Any, NamedTuple, NoReturn

from sqlalchemy import ColumnElement, Connection, Float, Text, and_, case, cast, collate, false, func, not_, or_, select

from genret.catalog.rows import is_text
from genret.catalog.schema import images
from genret.errors import UnknownName, UsageError

MAX_LENGTH = 2000
MAX_DEPTH = 50
"""Parentheses within parentheses."""
COLUMNS: dict[str, Any] = {"split": images.c.split, "uri": images.c.uri, "image_id": images.c.image_id}
"""The keys that are not metadata."""

_TOKEN = re.compile(
    r"""\s*(?:(?P<operator><=|>=|!=|==|=|<|>|~)|(?P<bracket>[()])
        |(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<word>[^\s()=!<>~"']+)|(?P<end>$))""",
    re.VERBOSE | re.DOTALL,
)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_BEGINS_WITH_NUMBER = r"^(?:[+-]?\d{1,200}(?:\.\d{0,200})?|\.\d{1,200})(?:[eE][+-]?\d{1,2}(?!\d))?"
"""PostgreSQL fails at a number that exceeds floats: the first 200 digits count, and exponents of at most two."""
_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


class _Token(NamedTuple):
    kind: str
    """operator, bracket, quoted, word or end"""
    text: str
    at: int
    """position in the filter, from 1"""

    @property
    def value(self) -> str:
        return re.sub(r"\\(.)", r"\1", self.text[1:-1], flags=re.DOTALL) if self.kind == "quoted" else self.text

    @property
    def is_null(self) -> bool:
        return self.text.lower() == "null"  # in quotes it is a text


class Compiled(NamedTuple):
    condition: ColumnElement[bool]
    keys: list[str]
    """The metadata keys that the filter uses."""

    def check_keys(self, connection: Connection) -> None:
        """Raises `UnknownName` if no image has one of the keys: an empty result would hide a typing error."""
        if connection.execute(select(images.c.id).limit(1)).first() is None:
            return
        for key in self.keys:
            if connection.execute(select(images.c.id).where(_stored(key).is_not(None)).limit(1)).first() is None:
                sample = connection.execute(select(images.c["metadata"]).limit(1000)).scalars()
                known = {str(name) for facts in sample for name in facts} | set(COLUMNS)
                raise UnknownName("key in --where", key, known)


def compile_filter(text: str, dialect: str = "sqlite") -> Compiled:
    """A filter → a condition on rows of `images`; `UsageError` names the position of an error."""
    if len(text) > MAX_LENGTH:
        raise UsageError(f"--where is longer than {MAX_LENGTH} characters; make it shorter")
    if not is_text(text):
        raise UsageError(f"--where {text!a} is no valid UTF-8 text; write it in UTF-8, without NUL")
    parser = _Parser(text, dialect)
    condition = parser.alternatives(0)
    if parser.next.kind != "end":
        parser.fail("'and', 'or' or the end (values of several words go in quotes)")
    return Compiled(condition, list(dict.fromkeys(parser.keys)))


class _Parser:
    """Recursive descent with one token of look-ahead."""

    def __init__(self, text: str, dialect: str):
        self.text = text
        self.dialect = dialect
        self.keys: list[str] = []
        self.next = self._token(0)

    def alternatives(self, depth: int) -> ColumnElement[bool]:
        parts = [self.conjunction(depth)]
        while self.accept("or"):
            parts.append(self.conjunction(depth))
        return or_(*parts)

    def conjunction(self, depth: int) -> ColumnElement[bool]:
        parts = [self.one(depth)]
        while self.accept("and"):
            parts.append(self.one(depth))
        return and_(*parts)

    def one(self, depth: int) -> ColumnElement[bool]:
        if depth > MAX_DEPTH:
            self.fail("fewer parentheses and 'not's within one another")
        if self.accept("not"):
            return not_(self.one(depth + 1))
        if self.accept("("):
            inside = self.alternatives(depth + 1)
            if not self.accept(")"):
                self.fail("')'")
            return inside.self_group()
        return self.comparison()

    def comparison(self) -> ColumnElement[bool]:
        key = self.next
        if key.kind not in ("word", "quoted") or key.text.lower() in ("and", "or"):
            self.fail("a key such as group, split, uri or image_id")
        if not key.value or '"' in key.value or "\\" in key.value:
            self.fail("a key without quotes and backslashes in it")
        self.advance()
        if self.next.kind != "operator":
            self.fail("one of = != < <= > >= ~")
        sign = self.advance().text.replace("==", "=")
        if self.next.kind not in ("word", "quoted"):
            self.fail("a value")
        if self.next.is_null and sign not in ("=", "!="):
            self.fail("a value other than null")
        if key.value not in COLUMNS:
            self.keys.append(key.value)
        return _comparison(key.value, sign, self.advance(), self.dialect == "postgresql")

    def accept(self, text: str) -> bool:
        return self.next.text.lower() == text and bool(self.advance())

    def advance(self) -> _Token:
        """Moves to the next token, and returns it."""
        token, self.next = self.next, self._token(self.next.at - 1 + len(self.next.text))
        return token

    def fail(self, expected: str) -> NoReturn:
        found = "it ends" if self.next.kind == "end" else f"stands '{self.next.text}'"
        raise UsageError(f"--where {self.text!r}: at character {self.next.at} {found}, expected {expected}")

    def _token(self, start: int) -> _Token:
        if match := _TOKEN.match(self.text, start):
            kind = str(match.lastgroup)
            return _Token(kind, match[kind], match.start(kind) + 1)
        wrong = self.text[start:].lstrip()
        at = len(self.text) - len(wrong) + 1
        what = "a quote is opened and not closed" if wrong[0] in "\"'" else f"'{wrong[0]}' means nothing"
        raise UsageError(f"--where {self.text!r}: at character {at} {what}")


# ------------------------------------------------------------------------------------------------------- conditions
def _stored(key: str) -> Any:
    return COLUMNS[key] if key in COLUMNS else images.c["metadata"][key].as_string()


def _comparison(key: str, sign: str, value: _Token, postgresql: bool) -> ColumnElement[bool]:
    """Never NULL, so that `not` also includes images without the key."""
    stored = _stored(key)
    if value.is_null:
        return stored.is_not(None) if sign == "!=" else stored.is_(None)
    # SQLite returns a JSON number or boolean as itself, other databases as text
    text: Any = cast(stored, Text)
    if postgresql:  # by code point and ASCII case, independent of the locale
        text = collate(text, "C")
    numeric = _NUMBER.fullmatch(value.text)
    if sign in _ORDER:
        left, right = (_number(text, postgresql), float(value.text)) if numeric else (text, value.value)
        found = _ORDER[sign](left, right)
    elif sign == "~":
        found = text.icontains(value.value, autoescape=True)
    else:
        found = text.in_(_spellings(value.text) if numeric else [value.value])
        if value.text.lower() in ("true", "false") and key not in COLUMNS:
            found |= _is_truth(key, value.text.lower(), postgresql)
    found = func.coalesce(found, false())
    return not_(found) if sign == "!=" else found


def _number(text: Any, postgresql: bool) -> Any:
    """The number at the beginning of a text, NULL where there is none."""
    if postgresql:  # it fails at text after the number, unlike others
        return cast(func.substring(text, _BEGINS_WITH_NUMBER), Float)
    first, second = func.substr(text, 1, 1), func.substr(text, 2, 1)
    begins = or_(first.between("0", "9"), and_(first.in_(["-", "+", "."]), second.between("0", "9")))
    return case((begins, cast(text, Float)), else_=None)


def _is_truth(key: str, truth: str, postgresql: bool) -> ColumnElement[bool]:
    stored = images.c["metadata"][key]
    if postgresql:  # a cast to BOOLEAN fails at other values
        return stored.as_string() == truth
    return stored.as_boolean().is_(truth == "true")


def _spellings(number: str) -> list[str]:
    """How a stored value that equals a number may be written: 7, 7.0 and as in the filter."""
    value = float(number)
    whole = [str(int(value))] if value.is_integer() else []
    return list(dict.fromkeys([number, repr(value), *whole]))
