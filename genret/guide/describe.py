"""Descriptions of components: summary, options with types, defaults and meanings, origin."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from genret.errors import GenretError, UnknownName
from genret.plugin.registry import KINDS, Registries, plural


class Option(NamedTuple):
    name: str
    """Key path below the slot, e.g. `heads.epochs`."""
    type: str
    default: Any
    required: bool
    bounds: str
    """The constraint of the value, e.g. `1 to 65536`; empty: none."""
    meaning: str


class Description(NamedTuple):
    kind: str
    name: str
    origin: str
    summary: str
    options: list[Option]
    error: str | None
    """Why it cannot be loaded."""

    def as_json(self) -> dict[str, Any]:
        return self._asdict() | {"options": [option._asdict() for option in self.options]}

    def page(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in ("option", "type", "default", "bounds", "meaning"):
            table.add_column(column, overflow="fold")
        for option in self.options:
            default = "required" if option.required else json.dumps(option.default, ensure_ascii=False)
            table.add_row(
                Text(option.name), Text(option.type), Text(default), Text(option.bounds), Text(option.meaning)
            )
        head = Text(f"{self.kind} {self.name} ({self.origin})", style="bold")
        return Group(head, Text(self.summary), *([table] if self.options else [Text("It has no options.")]))


def kind_named(name: str) -> str:
    """A kind by its name, its plural or its key in a recipe."""
    kinds = [*KINDS, "weights"]
    aliases = {"rerank": "reranker"} | {plural(kind): kind for kind in kinds}
    kind = aliases.get(name, name)
    if kind not in kinds:
        raise UnknownName("kind of component", name, kinds)
    return kind


def describe(registries: Registries, kind: str, name: str, strict: bool = False) -> Description:
    """`strict`: a component that cannot be loaded raises an error; else its description reports it."""
    registry = registries.of(kind)
    origin = registry.origin(name)
    try:
        component = registry.get(name)
    except GenretError as error:
        if strict:
            raise
        return Description(kind, name, origin, "", [], str(error))
    # a class without a docstring would inherit the base class's, which does not describe it
    words = component.__doc__ or getattr(inspect.getmodule(component), "__doc__", None) or ""
    summary = inspect.cleandoc(words).partition("\n\n")[0].replace("\n", " ")
    options = list(_options(component.Config)) if kind in KINDS else []
    return Description(kind, name, origin, summary, options, None)


def _options(model: type[BaseModel], prefix: str = "") -> Iterator[Option]:
    """Options of nested models follow their parent's, by key path; those of alternatives, one after the other."""
    for name, field in model.model_fields.items():
        path, meaning = f"{prefix}{name}", " ".join((field.description or "").split())
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        models = [part for part in (field.annotation, *get_args(field.annotation)) if _is_model(part)]
        if len(models) == 1:
            given = default if isinstance(default, BaseModel) else None
            if type(None) in get_args(field.annotation):
                yield Option(path, "options | null", None if given is None else {}, False, "", meaning)
            for option in _options(models[0], f"{path}."):
                inner = option.name.removeprefix(f"{path}.")
                yield option if given is None else option._replace(default=_dig(given, inner), required=False)
        elif models:
            kinds = [str(part.model_fields["type"].default) for part in models]
            yield Option(path, " | ".join(kinds), getattr(default, "type", None), field.is_required(), "", meaning)
            for kind, part in zip(kinds, models, strict=True):
                own = (option for option in _options(part, f"{path}.") if option.name != f"{path}.type")
                yield from (option._replace(name=f"{option.name} ({kind})") for option in own)
        else:
            kind, required = _type_name(field.annotation), field.is_required()
            yield Option(path, kind, _json_of(default), required, bounds_of(field), meaning)


def bounds_of(field: FieldInfo) -> str:
    """`1 to 65536`, `above 0, below 1`, `at least 1`; for lists and texts their items' bounds or their length."""
    rules: dict[str, Any] = {}
    for rule in field.metadata:
        for name in ("ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length", "pattern"):
            if (value := getattr(rule, name, None)) is not None:
                rules[name] = value
    said = []
    if "ge" in rules and "le" in rules:
        said.append(f"{rules.pop('ge')} to {rules.pop('le')}")
    words = {
        "ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}", "multiple_of": "a multiple of {}",
        "min_length": "at least {} long", "max_length": "at most {} long", "pattern": "like {}",
    }  # fmt: skip
    said += [phrase.format(rules[name]) for name, phrase in words.items() if name in rules]
    return ", ".join([*said, *(f"each {inner}" for inner in _bounds_inside(field.annotation))])


def _bounds_inside(annotation: Any) -> Iterator[str]:
    """Bounds of a list's items: `list[Annotated[int, Field(ge=2)]]`."""
    for argument in get_args(annotation):
        if get_origin(argument) is Annotated:
            inner, *rules = get_args(argument)
            if found := bounds_of(FieldInfo.from_annotation(Annotated[(inner, *rules)])):
                yield found
        else:
            yield from _bounds_inside(argument)


def _is_model(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)


def _dig(value: Any, path: str) -> Any:
    for part in path.split("."):
        value = getattr(value, part)
    return _json_of(value)


def _json_of(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        return [_json_of(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _json_of(item) for key, item in value.items()}
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " | ".join(str(value) for value in get_args(annotation))
    if annotation is type(None):
        return "null"
    if arguments := get_args(annotation):
        origin = get_origin(annotation)
        if origin is Annotated:
            return _type_name(arguments[0])
        if isinstance(origin, type) and origin.__name__ not in ("Union", "UnionType"):
            return f"{origin.__name__}[{', '.join(_type_name(a) for a in arguments if a is not ...)}]"
        return " | ".join(_type_name(argument) for argument in arguments)
    return getattr(annotation, "__name__", str(annotation)).lower() if isinstance(annotation, type) else str(annotation)
