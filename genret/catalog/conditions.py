"""What one comparison of a `--where` filter means in SQL, alike on every database. The language is in `filter.py`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Float, Text, and_, case, cast, false, func, not_, or_, true
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from genret.catalog.schema import images

COLUMNS: dict[str, Any] = {"split": images.c.split, "uri": images.c.uri, "image_id": images.c.image_id}
"""The keys that are no metadata."""
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_ORDER: dict[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def value_of(key: str) -> Any:
    return COLUMNS[key] if key in COLUMNS else images.c["metadata"][key].as_string()


def comparison(key: str, operator: str, value: str, bare: bool) -> ColumnElement[bool]:
    """Never NULL, so that `not` turns it round for images without the key, too."""
    stored = value_of(key)
    if bare and value.lower() == "null":
        missing: ColumnElement[bool] = stored.is_(None)
        return not_(missing) if operator == "!=" else missing
    # SQLite gives a JSON number or truth value as itself, other databases as text
    text: Any = _PlainText(cast(stored, Text))
    if operator in ("=", "==", "!="):
        same = [text.in_(_spellings(value) if bare and _NUMBER.fullmatch(value) else [value])]
        if bare and value.lower() in ("true", "false") and key not in COLUMNS:
            same.append(_Truth(images.c["metadata"][key]).is_(true() if value.lower() == "true" else false()))
        equal = func.coalesce(or_(*same), false())
        return not_(equal) if operator == "!=" else equal
    if operator == "~":
        found = text.icontains(value, autoescape=True)
    elif bare and _NUMBER.fullmatch(value):
        found = _ORDER[operator](_Number(text), float(value))
    else:
        found = _ORDER[operator](text, value)
    return func.coalesce(found, false())


class _PlainText(FunctionElement[str]):
    """A text that compares by code point and whose cases are those of ASCII, whatever the database's language."""

    type = Text()
    inherit_cache = True


class _Number(FunctionElement[float]):
    """The number at the beginning of a text, NULL where there is none."""

    type = Float()
    inherit_cache = True


class _Truth(FunctionElement[bool]):
    """A JSON value as a truth value, NULL where it is none."""

    type = Boolean()
    inherit_cache = True


@compiles(_PlainText)
def _plain_text(element: Any, compiler: Any, **options: Any) -> str:
    return compiler.process(*element.clauses, **options)


@compiles(_PlainText, "postgresql")
def _plain_text_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return f'({compiler.process(*element.clauses, **options)} COLLATE "C")'


@compiles(_Number)
def _number(element: Any, compiler: Any, **options: Any) -> str:
    (text,) = element.clauses
    first, second = func.substr(text, 1, 1), func.substr(text, 2, 1)
    begins = or_(first.between("0", "9"), and_(first.in_(["-", "+", "."]), second.between("0", "9")))
    return compiler.process(case((begins, cast(text, Float)), else_=None), **options)


@compiles(_Number, "postgresql")
def _number_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    """PostgreSQL, unlike others, fails at a text that goes on after the number, and at one that no float holds:
    of those the first 200 digits count, and exponents of at most two."""
    number = r"^(?:[+-]?\d{1,200}(?:\.\d{0,200})?|\.\d{1,200})(?:[eE][+-]?\d{1,2}(?!\d))?"
    text = compiler.process(*element.clauses, **options)
    return f"CAST(substring({text} FROM '{number}') AS FLOAT)"


@compiles(_Truth)
def _truth(element: Any, compiler: Any, **options: Any) -> str:
    (stored,) = element.clauses
    return compiler.process(stored.as_boolean(), **options)


@compiles(_Truth, "postgresql")
def _truth_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    """A cast to BOOLEAN would fail at the first value that is none."""
    (stored,) = element.clauses
    text = compiler.process(stored.as_string(), **options)
    return f"CASE {text} WHEN 'true' THEN TRUE WHEN 'false' THEN FALSE END"


def _spellings(number: str) -> list[str]:
    """How a stored value may be written that is equal to a number: 7, 7.0 and as it was asked for."""
    value = float(number)
    whole = [str(int(value))] if value.is_integer() else []
    return list(dict.fromkeys([number, repr(value), *whole]))
