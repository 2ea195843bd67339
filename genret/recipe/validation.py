"""Pydantic's validation errors, in sentences that name the nearest valid key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError

from genret.api import Config
from genret.errors import did_you_mean
from genret.recipe.plain_yaml import Keys


class OptionError(NamedTuple):
    path: Keys
    message: str


class Validated(NamedTuple):
    options: Config | None
    """The model's instance, None if there are errors."""
    errors: list[OptionError]


def validate_options(model: type[Config], values: Mapping[str, Any]) -> Validated:
    """Validates plain data strictly: no "4" for 4, no `true` for 1; a whole number is accepted for a float."""
    try:
        # strictness as in JSON: a list is accepted for a tuple and a string for a path
        return Validated(model.model_validate_json(json.dumps(values), strict=True), [])
    except ValidationError as error:
        messages: dict[Keys, list[str]] = {}
        for fault in error.errors(include_url=False):
            path = _path_in(values, fault["loc"])
            if message := _message(model, path, fault):
                known = messages.setdefault(path, [])
                if message not in known:
                    known.append(message)
        return Validated(None, [OptionError(path, " or ".join(found)) for path, found in messages.items()])


def _path_in(values: Any, location: tuple[int | str, ...]) -> Keys:
    """The keys of `location` that exist in the data: pydantic adds the names of a union's branches."""
    path: list[int | str] = []
    for index, part in enumerate(location):
        if isinstance(values, Mapping) and isinstance(part, str):
            if part not in values and index < len(location) - 1:
                continue
        elif not (isinstance(values, list) and isinstance(part, int) and part < len(values)):
            continue
        path.append(part)
        values = values.get(part) if isinstance(values, Mapping) else values[part]
    return tuple(path)


def _message(model: type[BaseModel], path: Keys, fault: Any) -> str:
    if fault["type"] == "extra_forbidden":
        known = _options_at(model, path[:-1])
        listing = f"; options: {', '.join(known)}" if known else ""
        return f"unknown key{did_you_mean(str(path[-1]), known)}{listing}"
    if fault["type"] == "missing":
        return "required, but not given"
    said = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    said = said.removeprefix("Input ")
    given = json.dumps(fault["input"], ensure_ascii=False, default=str)
    return f"{said}, not {given if len(given) <= 60 else given[:57] + '...'}"


def _options_at(model: type[BaseModel], path: Keys) -> list[str]:
    """The options of the nested model that `path` leads to."""
    for part in path:
        field = model.model_fields.get(str(part))
        inner = next(_models_in(field.annotation), None) if field else None
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _models_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
