"""The stored results of a finished run: figures, ranks, logs, provenance. No model or image is loaded.

Q queries
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genret.api import Dataset
from genret.catalog.place import has_catalog
from genret.errors import GenretError
from genret.evaluate.ranks import FOLDER, OWN_SEARCH, TWO_TOWER, QueryRanks, beams, read_ranks
from genret.folders import read_summary
from genret.kit.files import read_json
from genret.lab.compare.paired import paired
from genret.plugin.registry import Registries
from genret.recipe.load import load_recipe
from genret.recipe.schema import Recipe

SPLIT = "test"
"""Evaluation's name of the searched split."""


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    run: Path
    name: str
    """The shortest name that is unique on the page"""
    recipe: Recipe
    searched_split: str
    """The data set's name of the searched split"""
    evaluation: dict[str, Any] | None
    """`genret evaluate`'s document at the end of training; None if the searched images have no captions"""
    seconds: dict[str, float]
    quality: dict[str, Any] | None
    """Codebook diagnostics; None for retrievers without identifiers"""
    environment: dict[str, Any]
    metrics: list[dict[str, Any]]
    by_num_beams: dict[int, QueryRanks]
    """The ranks of every evaluated beam width"""
    two_tower: QueryRanks | None
    own_search: QueryRanks | None
    """Ranks of a run without beams, reranked if the recipe says so"""

    @property
    def num_beams(self) -> int | None:
        """Beams of the evaluation reported in detail; None for retrievers without beams."""
        return None if self.evaluation is None else self.evaluation.get("num_beams")

    @property
    def score_name(self) -> str:
        """What the scores of the run's hits are."""
        rerank = self.recipe.rerank
        if rerank is not None:
            mixed = getattr(rerank.options, "weight", 1) < 1
            return "the reranker’s and the first stage’s, standardized and mixed" if mixed else "the reranker’s"
        if self.num_beams is None:
            return "those of the run’s own search"
        return "log-probabilities" + (" and distances to the query’s vector, added" if self.recipe.guidance else "")

    @property
    def found(self) -> QueryRanks | None:
        """The ranks behind `recall`."""
        return self.by_num_beams.get(self.num_beams or 0) if self.recipe.retriever.has_beams else self.own_search

    @property
    def followed_beams(self) -> int | None:
        """The beam width for single queries: `num_beams`, or the largest with stored ranks."""
        if self.num_beams is None or self.num_beams in self.by_num_beams or not self.by_num_beams:
            return self.num_beams
        return max(self.by_num_beams)

    @property
    def has_catalog(self) -> bool:
        return has_catalog(self.run)

    @property
    def has_models(self) -> bool:
        wanted = ["encoder"] + (["identifier", "generator"] if self.recipe.has_identifiers else [])
        return self.has_catalog and all((self.run / part).is_dir() for part in wanted)


def read_runs(runs: Sequence[Path], registries: Registries) -> list[StoredRun]:
    """Reads finished run directories; `GenretError` names what is missing or damaged."""
    short = [run.resolve().name for run in runs]
    names = short if len(set(short)) == len(runs) else [str(run) for run in runs]
    return [_read(run, name, registries) for run, name in zip(runs, names, strict=True)]


def _read(run: Path, name: str, registries: Registries) -> StoredRun:
    recipe = load_recipe([run / "recipe.yaml"], [], registries)
    dataset: type[Dataset] = registries.dataset.get(recipe.dataset.type)
    found = read_summary(run)
    two_tower = read_ranks(run, SPLIT, TWO_TOWER)
    return StoredRun(
        run=run,
        name=name,
        recipe=recipe,
        searched_split=dataset(recipe.dataset.options, resolve_weights=registries.resolve_weights).test_split,
        evaluation=found.get("evaluation"),
        seconds=found.get("seconds") or {},
        quality=_json(run / "quality.json"),
        environment=_json(run / "environment.json") or {},
        metrics=_lines(run / "metrics.jsonl"),
        by_num_beams={
            width: ranks for width in _widths(run) if (ranks := _of_same(run, beams(width), two_tower)) is not None
        },
        two_tower=two_tower,
        own_search=_of_same(run, OWN_SEARCH, two_tower),
    )


def _widths(run: Path) -> list[int]:
    """The beam widths with stored ranks."""
    names = (re.fullmatch(rf"{SPLIT}\.(\d{{1,6}})-beams\.safetensors", path.name) for path in (run / FOLDER).glob("*"))
    return sorted(int(name[1]) for name in names if name)


def _of_same(run: Path, way: str, two_tower: QueryRanks | None) -> QueryRanks | None:
    """Ranks if they are of the same queries and images as those of two-tower search, otherwise None."""
    found = read_ranks(run, SPLIT, way)
    if found is None or two_tower is None:
        return found
    return found if paired([found, two_tower]) is not None else None


def _json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        found = read_json(path)
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise GenretError(f"{path} is damaged; restore a copy of it, or delete it to have a report without it")
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a log; a line truncated by a full disk is skipped."""
    rows = []
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("stage"), str):
            rows.append(row)
    return rows
