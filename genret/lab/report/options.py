"""A recipe for readers: components, options that differ from the defaults, and the whole with marks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from genret.recipe.schema import SLOTS, PlainOptions, Recipe

Path = tuple[str, ...]
_KEY = re.compile(r"( *)([A-Za-z0-9_-]+):(?: |$)")


class Changed(NamedTuple):
    """An option that differs from its default."""

    path: Path
    value: Any
    default: Any
    """The component's default; None with `has_default` False for required options"""
    has_default: bool

    @property
    def key(self) -> str:
        return ".".join(self.path)


class Line(NamedTuple):
    """One line of the resolved recipe."""

    text: str
    mark: str
    """`changed`, `chosen` for the name of a component, or empty"""


def changed_options(recipe: Recipe) -> list[Changed]:
    """Every option whose value is not its default, in the recipe's order."""
    found = list(_changed(recipe, PlainOptions, (), None))
    for key in SLOTS:
        if (slot := getattr(recipe, key)) is not None:
            found += _changed(slot.options, type(slot.options), (key,), None)
    for name, config in recipe.loss.items():
        found += _changed(config, type(config), ("loss", name), None)
    return found


def chosen(recipe: Recipe) -> dict[str, str]:
    """The components' names by slot."""
    named = {key: slot.type for key in SLOTS if (slot := getattr(recipe, key)) is not None}
    return named | ({"loss": ", ".join(recipe.loss)} if recipe.loss else {})


def marked_lines(recipe: Recipe) -> list[Line]:
    """The resolved recipe as YAML, line by line."""
    changed = {one.path for one in changed_options(recipe)}
    names = {(key, "type") for key in chosen(recipe)} | {("loss", name) for name in recipe.loss}
    lines: list[Line] = []
    path: list[str] = []
    for text in recipe.dump_yaml().splitlines():
        if found := _KEY.match(text):
            path = [*path[: len(found[1]) // 2], found[2]]
        here = tuple(path)
        mark = "changed" if any(here[: len(one)] == one for one in changed) else "chosen" if here in names else ""
        lines.append(Line(text, mark))
    return lines


def _changed(values: BaseModel, model: type[BaseModel], path: Path, defaults: BaseModel | None) -> Iterator[Changed]:
    """`defaults`: the owner's default for a nested model."""
    for name, field in model.model_fields.items():
        value = getattr(values, name)
        default = field.get_default(call_default_factory=True) if defaults is None else getattr(defaults, name)
        if isinstance(value, BaseModel):
            same = type(default) is type(value)
            if not same and "type" in type(value).model_fields:
                yield Changed((*path, name, "type"), value.type, getattr(default, "type", None), default is not None)  # type: ignore[attr-defined]
            inner = (one for one in _changed(value, type(value), (*path, name), default if same else None))
            yield from (one for one in inner if same or one.path != (*path, name, "type"))
        elif default is PydanticUndefined:
            yield Changed((*path, name), _plain(values, name), None, False)
        elif value != default:
            plain = default.model_dump(mode="json") if isinstance(default, BaseModel) else default
            yield Changed((*path, name), _plain(values, name), plain, True)


def _plain(values: BaseModel, name: str) -> Any:
    return values.model_dump(mode="json", include={name})[name]
