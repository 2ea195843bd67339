"""A run's metadata for MTEB. Unknown facts are None, as MTEB requires."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genret.catalog.place import run_id_of
from genret.recipe.schema import Recipe

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta

TASK_FILE = "mteb.json"
"""File beside a data set exported from a task that names the task."""
SAME_PICTURES = {
    "flickr30k": {"Flickr30kI2TRetrieval", "Flickr30kT2IRetrieval"},
    "coco": {"MSCOCOI2TRetrieval", "MSCOCOT2IRetrieval"},
}
"""MTEB tasks built from a `karpathy` data set, by a word of its folder's or file's name: runs trained on it are not
zero-shot there."""


def meta_of(run: Path, recipe: Recipe, num_beams: int | None) -> ModelMeta:
    """Revisions identify runs by their weights, so that MTEB's cache does not mix them up."""
    from mteb.models.model_meta import ModelMeta, ScoringFunction

    dense = not recipe.has_identifiers
    judged = recipe.rerank is not None
    told: dict[str, Any] = {
        "loader": None,  # a run is opened by its directory, not by name
        "name": f"genret/{run.resolve().name}",
        "revision": run_id_of(run),
        "release_date": None,
        "languages": None,
        "modalities": ["text", "image"],
        # parts that are loaded lazily have no known size
        "n_parameters": None,
        "memory_usage_mb": None,
        "max_tokens": None,
        "embed_dim": None,
        "license": None,
        "open_weights": None,
        "public_training_code": None,
        "public_training_data": None,
        "framework": ["PyTorch", "Transformers", "safetensors"],
        "similarity_fn_name": ScoringFunction.COSINE if dense and not judged else ScoringFunction.CUSTOM,
        "use_instructions": False,
        "training_datasets": trained_on(recipe),
        "model_type": ["dense"] if dense else [],  # MTEB has no term for generative retrieval
        "experiment_kwargs": _experiment(recipe, num_beams),
    }
    return ModelMeta(**told)


def trained_on(recipe: Recipe) -> set[str] | None:
    """Names of tasks whose images the run was trained on; None: unknown, because the encoder's pretraining data are not
    recorded."""
    options = recipe.dataset.options.model_dump()
    root = options.get("root")
    if recipe.dataset.type == "karpathy":
        place = f"{Path(str(root)).name}/{options.get('file')}".lower()
        return next((tasks for name, tasks in SAME_PICTURES.items() if name in place), None)
    if root is not None and (told := Path(root).expanduser() / TASK_FILE).is_file():
        return {str(json.loads(told.read_text(encoding="utf-8"))["task"])}
    return None


def _experiment(recipe: Recipe, num_beams: int | None) -> dict[str, Any] | None:
    """Other settings that affect figures: the number of beams, if it is not the run's own."""
    return None if num_beams in (None, recipe.search.num_beams) else {"num_beams": num_beams}
