"""Runs as `sweep --keep figures` leaves them: recipe, figures and logs, made by hand."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from genret.evaluate.metrics import recalls
from genret.evaluate.ranks import write_ranks
from genret.plugin.loading import load_plugins
from genret.plugin.registry import Registries
from genret.recipe.load import load_recipe
from genret.settings import Settings

RECIPE = """
dataset: {type: folder, root: pictures}
encoder: {type: paired, image: {type: timm, model: test_resnet}, text: {type: sentence, model: words}, dim: 16}
identifier: {type: rq, codebook_size: 8, num_levels: 2}
backbone: {type: t5, d_model: 16}
loss: {token: {weight: 0.5}}
train: {epochs: 3}
search: {num_beams: 20}
"""
LEDGER = [
    ("dense", 8, None), ("quantization", 2, 6), ("level 1", 1, 5), ("level 2", 0, 5), ("beam", 1, 4),
    ("collision", 0, 4), ("recovered", -1, 5), ("reached", 5, None), ("rerank", -2, 7), ("final", 7, None),
]  # fmt: skip


def load(name: str) -> ModuleType:
    """A module beside this file."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def html_tree() -> ModuleType:
    return load("html_tree")


@pytest.fixture(scope="session")
def registries() -> Registries:
    return load_plugins((), Settings(plugins="")).registries


class Ui:
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def ui() -> Ui:
    return Ui()


def rows_of_ledger() -> list[dict[str, Any]]:
    """10 queries, so that one is ten points."""
    rows = []
    for stage, queries, after in LEDGER:
        recall = 10.0 * (queries if after is None else after)
        lost = {} if after is None else {"lost": 10.0 * queries, "share": 12.5 * queries}
        rows.append({"stage": stage, "queries": queries, "recall": recall, **lost})
    return rows


@pytest.fixture
def make_run(tmp_path: Path, registries: Registries) -> Any:
    """`make_run(name, retriever=…, remark=…)` → its folder; ranks at 5 and 20 beams and of the two towers."""

    def make(name: str, recipe: str = RECIPE, **about: Any) -> Path:
        run = tmp_path / name
        run.mkdir()
        (run / "draft.yaml").write_text(recipe)
        resolved = load_recipe([run / "draft.yaml"], [], registries)
        (run / "draft.yaml").rename(run / "recipe.yaml").write_text(resolved.dump_yaml())
        dense = np.array([1, 1, 2, 3, 4, 6, 9, 10, 40, 50])
        wide, narrow = np.array([1, 1, 1, 4, 8, 60, 70, 80, 90, 99]), np.array([1, 1, 2, 4, 70, 70, 70, 80, 90, 99])
        generative = resolved.retriever.type == "generative"
        found = {"two-tower": dense}
        found |= {"20-beams": wide, "5-beams": narrow} if generative else {"search": dense}
        write_ranks(run, "test", [f"query {q}" for q in range(10)], range(10), [f"i{n}" for n in range(10)], found)
        evaluation = {
            "protocol": resolved.protocol, "concepts": None, "split": "test", "num_queries": 10, "num_images": 10,
            "num_beams": 20 if generative else None,
            "recall": recalls(wide if generative else dense), "identifier_recall": None,
            "by_num_beams": {"20": recalls(wide)} if generative else {}, "two_tower": recalls(dense),
            "ceiling": {"1": 20.0, "5": 50.0, "10": 60.0} if generative else None,
            "reranked": {"1": 20.0, "5": 50.0, "10": 70.0} if generative else None,
            "ledger": rows_of_ledger() if generative else [],
            "identifier": {"unique_rate": 0.5, "max_bucket": 3, "perplexity": [4.0, 2.0]} if generative else None,
            "remark": None, "first_stage": None,
        } | about  # fmt: skip
        (run / "summary.json").write_text(json.dumps({"seconds": {"generator": 61.5}, "evaluation": evaluation}))
        return run

    return make
