"""YAML files and `--set` overrides → one validated, frozen recipe. Builds no components and reads no weights.

A slot takes a scalar (`identifier: rq`) or a mapping with `type`, which replaces the previous value, or a mapping
without `type`, which is merged into it. Files come first, then overrides, each from left to right. All errors are
reported at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from genret.api import Config, Loss, LossConfig, Retriever
from genret.errors import GenretError, RecipeError, did_you_mean
from genret.plugin.registry import Registries
from genret.recipe.compatibility import invalid
from genret.recipe.draft import Draft
from genret.recipe.plain_yaml import Keys
from genret.recipe.schema import PARTS, SLOTS, PlainOptions, Recipe, RetrieverSlot, Slot
from genret.recipe.validation import validate_options

RENAMED: dict[Keys, tuple[Any, str]] = {
    ("search", "index"): (
        "exact",
        "is an option of the retriever now: --set 'retriever={type: two-tower, index: hnsw}'",
    ),
    ("search", "written_levels"): (None, "is train.written_levels now, because training depends on it"),
    ("search", "end_symbol"): (False, "is train.end_symbol now, because training depends on it"),
}
"""Keys of earlier versions, each with its former default and the present key. Resolved recipes of older runs contain
all of them."""


def load_recipe(files: Sequence[Path | str], overrides: Iterable[str], registries: Registries) -> Recipe:
    """Reads `files` in order, applies `overrides` ("a.b=value"), validates; `RecipeError` lists all errors."""
    draft = Draft(SLOTS)
    for file in files:
        draft.read_file(Path(file))
    for override in overrides:
        draft.read_override(override)
    recipe = _Checker(draft, registries).check()
    if recipe is None or draft.errors:
        raise RecipeError(draft.errors)
    for path, message in invalid(recipe, registries):
        draft.add_error(path, message)
    if draft.errors:
        raise RecipeError(draft.errors)
    return recipe


class _Checker:
    """Turns a draft into a recipe and collects errors instead of stopping at the first."""

    def __init__(self, draft: Draft, registries: Registries):
        self.draft = draft
        self.registries = registries

    def check(self) -> Recipe | None:
        if self.draft.errors:  # after an unreadable file, other errors would mislead
            return None
        values = self.draft.values
        known = [key for key in Recipe.model_fields if key != "idle"]
        for key in (key for key in values if key not in known):
            self.draft.add_error((key,), f"unknown key{did_you_mean(key, known)}; keys: {', '.join(known)}")
        for path, (default, what) in RENAMED.items():
            if isinstance(inner := values.get(str(path[0])), dict) and inner.pop(path[1], default) != default:
                self.draft.add_error(path, what)
        options = self._options((), PlainOptions, {k: values[k] for k in values if k in PlainOptions.model_fields})
        retriever = self._retriever(values.pop("retriever", None) or {"type": "generative"})
        for key in ("dataset", "encoder", *(PARTS if retriever is None else retriever.needs)):
            if values.get(key) is None:
                self.draft.errors.append(f"recipe: {key}: required, but no file and no --set gives it")
        slots: dict[str, Any] = {key: self._slot(key, values[key]) for key in SLOTS if values.get(key) is not None}
        losses = self._losses(values.get("loss"))
        if self.draft.errors:
            return None
        assert isinstance(options, PlainOptions)
        if (scheme := slots.get("identifier")) and not self.registries.identifier.get(scheme.type).is_additive:
            options, slots["idle"] = options.unguided()
        return Recipe(**dict(options) | slots, retriever=retriever, loss=losses)

    def _retriever(self, value: Any) -> RetrieverSlot | None:
        slot = self._slot("retriever", value)
        if slot is None:
            return None
        kind: type[Retriever] = self.registries.retriever.get(slot.type)
        return RetrieverSlot(**dict(slot), needs=kind.needs, has_beams=kind.has_beams)

    def _slot(self, key: str, value: Any) -> Slot | None:
        if not isinstance(value, dict):
            self.draft.add_error((key,), f"should be a name or a mapping with `type`, not {value!r}")
            return None
        registry = self.registries.of(SLOTS[key])
        name = value.get("type")
        if not isinstance(name, str):
            said = "has no `type`" if name is None else f"type should be a name, not {name!r}"
            self.draft.add_error((key,), f"{said}; one of: {', '.join(registry.names())}")
            return None
        try:
            component = registry.get(name)
        except GenretError as error:
            self.draft.add_error((key, "type"), str(error))
            return None
        rest = {option: given for option, given in value.items() if option != "type"}
        options = self._options((key,), component.Config, rest)
        return None if options is None else Slot(type=name, options=options)

    def _losses(self, value: Any) -> dict[str, LossConfig]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.draft.add_error(("loss",), f"should be a mapping such as {{token: {{weight: 1}}}}, not {value!r}")
            return {}
        found: dict[str, LossConfig] = {}
        for name, given in value.items():
            if given is None:  # `--set loss.rank=null` takes a loss out
                continue
            try:
                loss: type[Loss] = self.registries.loss.get(name)
            except GenretError as error:
                self.draft.add_error(("loss", name), str(error))
                continue
            if not isinstance(given, dict):
                self.draft.add_error(("loss", name), f"should be a mapping such as {{weight: 1}}, not {given!r}")
            elif (options := self._options(("loss", name), loss.Config, given)) is not None:
                assert isinstance(options, LossConfig)
                found[name] = options
        return found

    def _options(self, path: Keys, model: type[Config], values: dict[str, Any]) -> Config | None:
        validated = validate_options(model, values)
        for fault in validated.errors:
            self.draft.add_error((*path, *fault.path), fault.message)
        return validated.options
