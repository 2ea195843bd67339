"""Names of components and their classes, imported on first use.

A registry never overwrites and never renames. It records who registered a name, for error messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from genret import api
from genret.errors import GenretError, UnknownName, UsageError
from genret.plugin.output import output_aside
from genret.settings import Settings

KINDS: dict[str, type[api.Component]] = {
    base.kind: base
    for base in (
        *(api.Dataset, api.Encoder, api.Identifier, api.Backbone, api.Loss),
        *(api.Reranker, api.Retriever, api.Evaluator),
    )
}


FUNCTIONS = ("weights", "function")
"""Kinds of functions, which have registries as well."""


def plural(kind: str) -> str:
    """As in hook names: `register_losses`."""
    return {"loss": "losses", "weights": "weights"}.get(kind, f"{kind}s")


class Entry(NamedTuple):
    target: Any
    """"module:Class", or the object itself"""
    origin: str
    """Who registered it: "genret", a plugin's name, a file."""


class Registry:
    """The names of one kind: components, or functions that provide weights or show things."""

    def __init__(self, kind: str, base: type[api.Component] | None = None, hint: str = ""):
        self.kind = kind
        self.base = base
        self.hint = hint
        """Added to the error about an unknown name."""
        self.providers: dict[str, str] = {}
        """Where unregistered names may come from, in words; added to the error about such a name."""
        self._entries: dict[str, Entry] = {}

    def register(self, name: str, target: Any, origin: str = "genret") -> None:
        if not isinstance(name, str) or not name.strip():
            raise UsageError(f"{origin}: a {self.kind} needs a name, not {name!r}")
        if name in self._entries:
            raise UsageError(
                f"the {self.kind} '{name}' of {origin} is already registered by {self._entries[name].origin}; "
                "rename one of them or remove one plugin"
            )
        if isinstance(target, str) and not (":" in target and all(target.split(":", 1))):
            raise UsageError(f"{origin}: the {self.kind} '{name}' needs a target 'module:Class', not '{target}'")
        self._entries[name] = Entry(target, origin)

    def get(self, name: str) -> Any:
        """The class (or function) registered as `name`, validated."""
        entry = self._entry(name)
        target = entry.target
        if isinstance(target, str):
            target = self._import(name, entry)
            self._entries[name] = entry._replace(target=target)
        self._check(name, target, entry.origin)
        return target

    def copy(self) -> Registry:
        """A copy with the same names, to try registrations on."""
        other = Registry(self.kind, self.base, self.hint)
        other._entries = dict(self._entries)
        return other

    def names(self) -> list[str]:
        return sorted(self._entries)

    def origin(self, name: str) -> str:
        return self._entry(name).origin

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _entry(self, name: str) -> Entry:
        if name not in self._entries:
            hints = [hint for hint in (self.providers.get(name), self.hint) if hint]
            raise UnknownName(self.kind, name, self._entries, "; ".join(hints))
        return self._entries[name]

    def _import(self, name: str, entry: Entry) -> Any:
        module, attribute = entry.target.split(":", 1)
        where = f"the {self.kind} '{name}' ({entry.origin}) cannot be loaded"
        try:
            with output_aside():
                loaded = import_module(module)
        except ModuleNotFoundError as error:
            raise GenretError(f"{where}: it needs the package '{error.name}', which is not installed") from error
        except Exception as error:
            raise GenretError(f"{where}: {module} fails with {type(error).__name__}: {error}") from error
        if not hasattr(loaded, attribute):
            raise GenretError(f"{where}: the module {module} has no '{attribute}'")
        return getattr(loaded, attribute)

    def _check(self, name: str, target: Any, origin: str) -> None:
        where = f"the {self.kind} '{name}' ({origin})"
        if self.base is None:
            if not callable(target):
                raise GenretError(f"{where} is no function but a {type(target).__name__}")
            return
        if not (isinstance(target, type) and issubclass(target, self.base)):
            raise GenretError(f"{where} is no subclass of genret.{self.base.__name__}: {target!r}")
        if target.kind != self.kind:
            raise GenretError(f"{where} says that its kind is '{target.kind}'")
        if missing := sorted(getattr(target, "__abstractmethods__", ())):
            raise GenretError(f"{where} does not implement {', '.join(missing)}")
        needed = self.base.Config
        if not (isinstance(target.Config, type) and issubclass(target.Config, needed)):
            raise GenretError(f"{where} has a Config that is no subclass of {needed.__name__}")


class Registries:
    """All registries of one program, built once and passed explicitly."""

    def __init__(self, settings: Settings):
        hint = "more come with plugins, see: genret plugins"
        self._of = {kind: Registry(kind, KINDS.get(kind), hint) for kind in (*KINDS, *FUNCTIONS)}
        self.sources: dict[str, str] = {}
        """By plugin: the package with its version, or the file."""
        self._cache: Path = settings.weights_dir

    def of(self, kind: str) -> Registry:
        """The registry of a kind, by its name in `KINDS` or `FUNCTIONS`; kinds are also attributes."""
        if kind not in self._of:
            raise UnknownName("kind of component", kind, self._of)
        return self._of[kind]

    def __getattr__(self, kind: str) -> Registry:
        if kind not in vars(self).get("_of", ()):
            raise AttributeError(f"there is no kind of component '{kind}'")
        return self._of[kind]

    def all(self) -> list[Registry]:
        return list(self._of.values())

    def watched(self, component: api.Component, name: str) -> Any:
        """The component; one of a plugin is watched: what it raises and returns is checked at every call."""
        origin = self.of(component.kind).origin(name)
        is_own = origin.partition(".")[0] == "genret"
        return component if is_own else self.function.get("watch")(component, name, origin)

    def resolve_weights(self, name: str) -> str:
        """The local folder of registered weights; any other name (path, hub name) is returned unchanged.

        A name with the prefix of registered ones, such as `starter:`, must be registered, and so must a name that a
        known plugin would provide.
        """
        prefix, colon, _ = name.partition(":")
        known = [*self.weights, *self.weights.providers]
        if name not in known and not (colon and any(one.startswith(prefix + ":") for one in known)):
            return name
        return str(self.weights.get(name)(self._cache))
