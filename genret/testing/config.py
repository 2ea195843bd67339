"""Checks of options: frozen, documented, with valid defaults, and unchanged by storing a recipe."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from genret.api import Component
from genret.errors import GenretError
from genret.plugin.registry import KINDS, Registry
from genret.recipe.validation import validate_options
from genret.testing.world.expect import Checked


def check_config(component: type[Component], /, **options: Any) -> None:
    """Checks that the class is complete and that its `Config` follows the rules of options."""
    checked = Checked(component)
    kind = getattr(component, "kind", None)
    checked.expect(kind in KINDS, f"its kind is {kind!r}; subclass one of genret.Dataset, Encoder, Identifier, ...")
    registry = Registry(str(kind), KINDS[str(kind)])
    try:
        registry.register("it", component, "the plugin")
        registry.get("it")
    except GenretError as error:
        checked.fail(str(error))
    words = component.__doc__ or getattr(inspect.getmodule(component), "__doc__", None) or ""
    checked.expect(words.strip(), "neither it nor its module has a docstring; `genret components` shows the first line")
    _check_model(checked, component.Config, "Config")
    config = made(component, options).config
    stored = config.model_dump(mode="json")
    again = validate_options(component.Config, stored)
    checked.expect(
        again.options == config,
        f"its options are not the same after a run has stored them as {stored}: "
        + (
            "; ".join(fault.message for fault in again.errors)
            or "use types that JSON can hold, and no clever validators"
        ),
    )


def made(component: type[Component], options: dict[str, Any]) -> Any:
    """The component with options as a recipe would give them."""
    checked = Checked(component)
    found = validate_options(component.Config, options)
    if found.options is None:
        what = "its defaults are" if not options else f"the options {options} are"
        reasons = "; ".join(f"{'.'.join(map(str, fault.path))}: {fault.message}" for fault in found.errors)
        checked.fail(f"{what} not valid: {reasons}")
    with checked.doing("it was made"):
        return component(found.options)


def _check_model(checked: Checked, model: type[BaseModel], path: str) -> None:
    checked.expect(model.model_config.get("frozen"), f"{path} is not frozen; derive it from genret.Config")
    checked.expect(
        model.model_config.get("extra") == "forbid",
        f"{path} takes unknown keys, so a misspelt option would go unseen; derive it from genret.Config",
    )
    for name, field in model.model_fields.items():
        where = f"{path}.{name}"
        inner = [part for part in (field.annotation, *get_args(field.annotation)) if _is_model(part)]
        for part in inner:
            _check_model(checked, part, where)
        # an option that is itself a group of options, or the name of an alternative, needs no docstring
        checked.expect(
            inner or name == "type" or (field.description or "").strip(),
            f'{where} has no meaning; write one line as a docstring under it, """...""", for `genret components`',
        )
        if not field.is_required():
            _check_default(checked, model, name, where)


def _check_default(checked: Checked, model: type[BaseModel], name: str, where: str) -> None:
    """pydantic does not validate defaults, but a recipe that sets them explicitly would be rejected."""
    field = model.model_fields[name]
    default = field.get_default(call_default_factory=True)
    rules: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    try:
        TypeAdapter(rules).validate_python(default)
    except ValidationError as error:
        checked.fail(f"the default of {where}, {default!r}, breaks its own rules: {error.errors()[0]['msg']}")


def _is_model(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)
