"""How genret is extended: one hook per kind of component. The built-ins register through the same hooks
(components/__init__.py).

    import genret

    @genret.hookimpl
    def register_losses(register):
        register("margin", "my_package.losses:MarginLoss")

`target` is "module:Class", imported when a recipe first names it, or the class itself. Names are unique: a plugin that
registers an existing name is rejected as a whole. A plugin is a module with such functions, found as an entry point of
group `genret`, as a file in `<home>/plugins/`, or by `--plugin FILE`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

if TYPE_CHECKING:
    import typer

hookspec = pluggy.HookspecMarker("genret")
hookimpl = pluggy.HookimplMarker("genret")


class Register(Protocol):
    def __call__(self, name: str, target: str | type) -> None: ...


class RegisterWeights(Protocol):
    def __call__(self, name: str, target: str | WeightsFunction) -> None: ...


class RegisterFunction(Protocol):
    def __call__(self, name: str, target: str | Callable[..., Any]) -> None: ...


class WeightsFunction(Protocol):
    def __call__(self, cache: Path, /) -> Path: ...


@hookspec
def register_datasets(register: Register) -> None:
    """Adds subclasses of `genret.Dataset`: captioned images in named splits."""


@hookspec
def register_encoders(register: Register) -> None:
    """Adds subclasses of `genret.Encoder`: two towers that share a space."""


@hookspec
def register_identifiers(register: Register) -> None:
    """Adds subclasses of `genret.Identifier`: how an image gets its sequence of codes."""


@hookspec
def register_backbones(register: Register) -> None:
    """Adds subclasses of `genret.Backbone`: language models that write identifiers."""


@hookspec
def register_losses(register: Register) -> None:
    """Adds subclasses of `genret.Loss`: terms of the tokenizer's or the generator's objective."""


@hookspec
def register_rerankers(register: Register) -> None:
    """Adds subclasses of `genret.Reranker`: new scores for another retriever's candidates."""


@hookspec
def register_retrievers(register: Register) -> None:
    """Adds subclasses of `genret.Retriever`: anything that finds images by text queries."""


@hookspec
def register_evaluators(register: Register) -> None:
    """Adds subclasses of `genret.Evaluator`: additional figures of a run, under their own name."""


@hookspec
def register_weights(register: RegisterWeights) -> None:
    """Adds pretrained weights from a package, for recipes to name, e.g. `mine:tiny-t5`.

    The target is a function `(cache: Path) -> Path` that returns a local model folder, created below `cache` if needed.
    """


@hookspec
def register_functions(register: RegisterFunction) -> None:
    """Adds functions that the core asks for by name; what each takes and returns: `genret/shell/__init__.py`."""


@hookspec
def register_commands(cli: typer.Typer) -> None:
    """Adds commands to the `genret` program: `@cli.command() def hello(): ...`."""
