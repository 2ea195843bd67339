"""Every registered component passes the conformance kit: a new one is tested the day it is registered.

Those that need weights, data or small sizes have options here; others are checked as they come.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genret import testing
from genret.plugin.loading import load_plugins
from genret.plugin.registry import KINDS
from genret.settings import Settings

REGISTRIES = load_plugins((), Settings(plugins="")).registries
CHECKS: dict[str, Callable[..., None]] = {kind: getattr(testing, f"check_{kind}") for kind in KINDS}

FITTED = {"epochs": 4, "batch_size": 12}
SIZES = {"codebook_size": 8, "num_levels": 3}
HEADS = {"epochs": 60, "batch_size": 20, "lr": 3e-3}
EYES = {"type": "timm", "model": "test_resnet", "pretrained": False, "image_size": 48, "bf16": False}

SMALL = {"model": None, "d_model": 32, "d_ff": 64, "num_layers": 1, "num_heads": 4, "vocab_size": 128}

OPTIONS: dict[str, Any] = {
    "backbone llama": SMALL,
    "backbone llama-7b-lora": SMALL | {"dtype": "float32", "lora": None, "save": "merged"},
    "backbone t5": SMALL,
    "backbone t5-base": SMALL,
    "backbone t5-large": SMALL,
    "backbone t5-xl": SMALL,
    "dataset folder": {"root": "{folder_data}", "captions": "captions.jsonl"},
    "dataset huggingface": {"name": "{saved_table}", "dev_split": "dev"},
    "dataset karpathy": {"root": "{karpathy_data}", "dev_split": "dev", "expect": {}},
    "dataset webdataset": {"root": "{shards}", "dev": "dev/*.tar"},
    "dataset photos": {"root": "{bare_folder}"},
    "dataset sentences": {"file": "{sentences_file}"},
    "dataset words": {"count": 200},
    "encoder run": {"run": "{earlier_run}", "beats_chance": False},
    "encoder clip": {"model": "{clip_folder}", "bf16": False, "beats_chance": False},
    "encoder open-clip": {"model": "{open_clip_folder}", "bf16": False, "beats_chance": False},
    "encoder paired": {
        "image": EYES,
        "text": {"type": "sentence", "model": "{sentence_folder}", "bf16": False},
        "views": 2,
        "train": HEADS,
    },
    "encoder two-space": {
        "image": EYES,
        "text": {"type": "sentence", "model": "{sentence_folder}", "bf16": False},
        "reader": {"type": "sentence", "model": "{sentence_folder}", "bf16": False},
        "train": HEADS,
    },
    "identifier residual-kmeans": SIZES,
    "identifier two-space": SIZES | {"reader_levels": 2},
    "identifier rq": SIZES | {"hidden_width": 16, "train": FITTED},
    "identifier structured": {"branching": 4, "leaf_size": 4},
    "reranker itm": {"model": "{blip}", "bf16": False, "beats_chance": False},
    "evaluator trec": {"folder": "{tmp_path}"},
}
"""By kind and name; `{fixture}` stands for the folder that it makes. Further settings follow a slash."""
OPTIONS |= {
    "identifier rq / shared codebook": SIZES | {"hidden_width": 16, "train": FITTED, "shared_codebook": True},
    "identifier rq / free codes": SIZES | {"hidden_width": 16, "train": FITTED, "collisions": "nearest-free"},
    "identifier residual-kmeans / one more symbol": SIZES | {"collisions": "extra-symbol"},
    "identifier residual-kmeans / balanced": SIZES | {"collisions": "balanced"},
    "identifier structured / keep": {"branching": 4, "leaf_size": 4, "collisions": "keep"},
    "retriever two-tower / hnsw": {"index": "hnsw"},
}


def cases() -> list[str]:
    known = [f"{kind} {name}" for kind in KINDS for name in REGISTRIES.of(kind)]
    return [*known, *(case for case in OPTIONS if "/" in case)]


def filled(value: Any, request: pytest.FixtureRequest) -> Any:
    """Options with folders in the places of fixtures."""
    if isinstance(value, dict):
        return {key: filled(part, request) for key, part in value.items()}
    if isinstance(value, str) and value.startswith("{"):
        return str(request.getfixturevalue(value.strip("{}")))
    return value


@pytest.mark.filterwarnings("ignore")  # of pandas, pyarrow and fsspec
@pytest.mark.parametrize("case", cases())
def test_the_built_ins_pass_the_kit(case: str, request: pytest.FixtureRequest) -> None:
    kind, name = case.split(" / ")[0].split(" ", 1)
    CHECKS[kind](REGISTRIES.of(kind).get(name), **filled(OPTIONS.get(case, {}), request))


def test_options_are_of_components_that_there_are() -> None:
    known = {f"{kind} {name}" for kind in KINDS for name in REGISTRIES.of(kind)}
    assert {case.split(" / ")[0] for case in OPTIONS} <= known


def test_the_kit_is_one_function_per_kind() -> None:
    assert {f"check_{kind}" for kind in KINDS} | {
        "ContractError",
        "check_config",
        "check_plugin",
        "check_recipe",
        "train_run",
    } == set(testing.__all__)
    assert all((Path(testing.__file__).parent / f"{kind}.py").is_file() for kind in KINDS)
