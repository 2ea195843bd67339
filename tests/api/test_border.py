"""What plugins return and raise in a run ends in one sentence that names them, with the cause behind it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import genret
from genret import GenretError
from genret.testing import train_run
from genret.testing.templates.encoder import ExampleEncoder
from genret.testing.templates.evaluator import ExampleEvaluator
from genret.testing.templates.identifier import ExampleIdentifier
from genret.testing.templates.loss import ExampleLoss
from genret.testing.templates.reranker import ExampleReranker
from genret.testing.templates.retriever import ExampleRetriever
from genret.testing.world.pictures import WorldDataset

TAIL = """
backbone: {type: t5, d_model: 16, d_ff: 16, num_layers: 1, num_heads: 2, vocab_size: 128}
train: {epochs: 1, bf16: false}
search: {num_beams: 10}
"""
IDENTIFIER = "identifier: {type: mine, codebook_size: 6, num_levels: 2}\nloss: {token: {weight: 1}}" + TAIL
LOSS = (
    "identifier: {type: numeric}\nprotocol: transductive-pseudo\nloss: {token: {weight: 1}, mine: {weight: 1}}" + TAIL
)
RECIPES = {
    "dataset": "{retriever: two-tower, dataset: mine}",
    "encoder": "{retriever: two-tower, encoder: mine}",
    "identifier": IDENTIFIER,
    "loss": LOSS,
    "reranker": "{retriever: two-tower, rerank: mine}",
    "retriever": "{retriever: mine}",
    "evaluator": "{retriever: two-tower}",
}
BASES: dict[str, type] = {
    "dataset": WorldDataset,
    "encoder": ExampleEncoder,
    "identifier": ExampleIdentifier,
    "loss": ExampleLoss,
    "reranker": ExampleReranker,
    "retriever": ExampleRetriever,
    "evaluator": ExampleEvaluator,
}


def plugin(kind: str, methods: dict[str, Any]) -> ModuleType:
    component = type("Mine", (BASES[kind],), methods | {"__doc__": "Broken on purpose.", "__module__": "broken"})
    module = ModuleType("broken")
    module.__file__ = __file__
    hook = "register_losses" if kind == "loss" else f"register_{kind}s"

    def register_it(register: Any) -> None:
        register("mine", component)

    setattr(module, hook, genret.hookimpl(register_it, specname=hook))
    return module


def returns(change: Any) -> Any:
    """A method that changes what the one of the base returned."""

    def wrap(kind: str, name: str) -> Any:
        own = getattr(BASES[kind], name)
        return lambda self, *given, **more: change(own(self, *given, **more))

    return wrap


def raises(self: Any, *given: Any, **more: Any) -> Any:
    raise IndexError("list index out of range")


FAULTS: list[tuple[str, str, Any, str]] = [
    ("dataset", "records", returns(lambda found: [one._replace(captions="a text") for one in found]), "tuple of texts"),
    (
        "dataset",
        "records",
        returns(lambda found: [one._replace(image_id="same") for one in found]),
        "image_id once",
    ),
    ("dataset", "records", returns(lambda found: [tuple(one) for one in found]), "genret.Record"),
    ("dataset", "read", returns(lambda found: None), "the picture as bytes"),
    ("encoder", "image_features", returns(lambda found: found.numpy()), "a tensor"),
    ("encoder", "image_features", returns(lambda found: found[:-1]), "a tensor"),
    ("encoder", "text_features", returns(lambda found: found[0]), "a tensor"),
    ("encoder", "text_features", returns(lambda found: found * np.nan), "of finite floats"),
    ("encoder", "project_texts", returns(lambda found: 3 * found), "whose rows have length 1"),
    ("identifier", "identify", returns(lambda found: found.codes), "whose owners"),
    (
        "identifier",
        "identify",
        returns(lambda found: found._replace(owners=found.owners + 1)),
        "whose owners",
    ),
    (
        "identifier",
        "identify",
        returns(lambda found: found._replace(codes=found.codes[:, :1])),
        "a column for each",
    ),
    ("identifier", "identify", returns(lambda found: found._replace(codes=found.codes.float())), "int64 tensor"),
    ("identifier", "identify", returns(lambda found: found._replace(codes=found.codes + 6)), "vokens.sizes"),
    ("identifier", "identify", returns(lambda found: found._replace(texts=["a"] * 3)), "either codes or texts"),
    ("reranker", "score", returns(lambda found: found[:, :1]), "of floats"),
    ("reranker", "score", returns(lambda found: found * np.nan), "some are nan"),
    ("reranker", "score", returns(lambda found: found.tolist()), "of floats"),
    ("retriever", "candidates", returns(lambda found: found.images), "genret.Ranked"),
    ("retriever", "candidates", returns(lambda found: found._replace(scores=found.scores[:, :1])), "genret.Ranked"),
    ("retriever", "candidates", returns(lambda found: found._replace(scores=found.scores * np.nan)), "finite scores"),
    ("loss", "__call__", returns(lambda found: found[None]), "a tensor of shape ()"),
    ("loss", "__call__", returns(lambda found: found.item()), "a tensor of shape ()"),
    ("loss", "__call__", returns(lambda found: found * np.nan), "the loss (mine) became nan"),
]
RAISING = [
    ("dataset", "records"), ("dataset", "read"), ("encoder", "fit"), ("encoder", "image_features"), ("encoder", "save"),
    ("encoder", "load"), ("identifier", "fit"), ("identifier", "identify"), ("identifier", "save"),
    ("loss", "__call__"),
    ("reranker", "score"), ("retriever", "build_index"), ("retriever", "candidates"), ("evaluator", "evaluate"),
    ("evaluator", "after_training"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "method", "change", "wanted"), FAULTS)
def test_what_a_plugin_returns(kind: str, method: str, change: Any, wanted: str, tmp_path: Path) -> None:
    module = plugin(kind, {method: change(kind, method)})
    with pytest.raises(GenretError) as caught:
        run = train_run(tmp_path / "run", RECIPES[kind], module)
        run.search("a dog in the sea")
    assert wanted in str(caught.value), caught.value
    assert "mine" in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("kind", "method"), RAISING)
def test_what_a_plugin_raises(kind: str, method: str, tmp_path: Path) -> None:
    with pytest.raises(GenretError) as caught:
        run = train_run(tmp_path / "run", RECIPES[kind], plugin(kind, {method: raises}))
        run.search("a dog in the sea")
    said = str(caught.value)
    assert f"the {kind} 'mine'" in said and f"{method}() failed with IndexError: list index out of range" in said
    assert isinstance(caught.value.__cause__, IndexError), "--debug shows where"


@pytest.mark.parametrize("kind", RECIPES)
def test_sound_ones_pass(kind: str, tmp_path: Path) -> None:
    with train_run(tmp_path / "run", RECIPES[kind], plugin(kind, {})) as run:
        assert run.search("a dog in the sea", k=3).hits


def test_genrets_own_errors_stay(tmp_path: Path) -> None:
    def refuses(self: Any, *given: Any) -> Any:
        raise GenretError("the shop is closed; come back tomorrow")

    with pytest.raises(GenretError, match=r"^the shop is closed; come back tomorrow$"):
        train_run(tmp_path / "run", RECIPES["identifier"], plugin("identifier", {"fit": refuses}))


def test_the_module_needs_no_torch() -> None:
    assert "torch" not in vars(sys.modules["genret.shell.watch"]) and torch is not None
