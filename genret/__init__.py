"""genret: generative text-to-image retrieval.

Imports for programs and plugin authors. Names are imported on first use, so that `import genret` alone stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genret.api import (
        Backbone,
        Candidates,
        CaptionedImages,
        Component,
        Config,
        Corpus,
        Dataset,
        Encoder,
        Evaluator,
        FitContext,
        GeneratorBatch,
        Identifier,
        Identifiers,
        LoopOptions,
        Loss,
        LossConfig,
        Pairs,
        QueryBatch,
        Record,
        Reranker,
        RerankerConfig,
        Retriever,
        SoftTarget,
        TokenizerBatch,
        Vokens,
    )
    from genret.errors import BadImage, GenretError, RecipeError, UnknownName, UsageError
    from genret.plugin.hookspecs import hookimpl
    from genret.run import Run, load
    from genret.search.catalog import CatalogRetriever
    from genret.search.ranking import Ranked
    from genret.serve.client import connect

__all__ = [
    "Backbone",
    "BadImage",
    "Candidates",
    "CaptionedImages",
    "CatalogRetriever",
    "Component",
    "Config",
    "Corpus",
    "Dataset",
    "Encoder",
    "Evaluator",
    "FitContext",
    "GeneratorBatch",
    "GenretError",
    "Identifier",
    "Identifiers",
    "LoopOptions",
    "Loss",
    "LossConfig",
    "Pairs",
    "QueryBatch",
    "Ranked",
    "RecipeError",
    "Record",
    "Reranker",
    "RerankerConfig",
    "Retriever",
    "Run",
    "SoftTarget",
    "TokenizerBatch",
    "UnknownName",
    "UsageError",
    "Vokens",
    "__version__",
    "connect",
    "hookimpl",
    "load",
]
"""docs/plugins.md defines what "public" means."""

_HOME = {
    **dict.fromkeys(__all__, "api"),
    **dict.fromkeys(("Run", "load"), "run"),
    "connect": "serve.client",
    "hookimpl": "plugin.hookspecs",
    "CatalogRetriever": "search.catalog",
    "Ranked": "search.ranking",
    **dict.fromkeys(("BadImage", "GenretError", "RecipeError", "UnknownName", "UsageError"), "errors"),
}
"""The module of each public name."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("genret")
    if name in _HOME:
        return getattr(import_module(f"genret.{_HOME[name]}"), name)
    raise AttributeError(f"module 'genret' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
