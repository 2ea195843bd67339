"""The docstrings under a record's fields, where `help()` finds them."""

from __future__ import annotations

import ast
import inspect
from functools import cache
from typing import TypeVar

Record = TypeVar("Record", bound=type)


def described(record: Record) -> Record:
    """Gives every field of a named tuple the text that stands under it, instead of "Alias for field number 0"."""
    for field, text in _texts(inspect.getfile(record)).get(record.__name__, {}).items():
        getattr(record, field).__doc__ = text
    return record


@cache
def _texts(file: str) -> dict[str, dict[str, str]]:
    """By class and field."""
    with open(file, encoding="utf-8") as stream:  # noqa: PTH123 (pathlib is slow to import)
        classes = [node for node in ast.parse(stream.read()).body if isinstance(node, ast.ClassDef)]
    return {
        node.name: {
            field.target.id: inspect.cleandoc(text.value.value)
            for field, text in zip(node.body, node.body[1:], strict=False)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
        }
        for node in classes
    }
