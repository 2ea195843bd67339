"""A finished run's figures on one split, read from stored evaluations; no model is loaded.

Q queries
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genret.errors import GenretError
from genret.evaluate.metrics import CUTOFFS, Recalls, discounted, median_rank, recalls, reciprocal
from genret.evaluate.ranks import OWN_SEARCH, TWO_TOWER, QueryRanks, beams, read_ranks
from genret.folders import read_summary
from genret.kit.arrays import Ints
from genret.plugin.registry import Registries
from genret.recipe.load import load_recipe
from genret.recipe.schema import Recipe, Slot

MEASURES = (*(f"recall@{k}" for k in CUTOFFS), "mrr", "ndcg@10")
"""The measures for comparing runs: means over queries. Recalls are percentages, the others lie between 0 and 1."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    run: Path
    recipe: Recipe
    split: str
    num_beams: int | None
    """None for retrievers without beams"""
    found: QueryRanks | None
    """None if there can be no figures; `remark` says why"""
    dense: QueryRanks | None
    """Of the two-tower search with the same features"""
    remark: str | None

    @property
    def recall(self) -> Recalls:
        if self.found is None:
            return dict.fromkeys(map(str, CUTOFFS))
        return recalls(self.found.ranks, num_beams=self.num_beams)

    @property
    def two_tower(self) -> Recalls | None:
        return None if self.dense is None else recalls(self.dense.ranks)


def way_of(recipe: Recipe, num_beams: int | None) -> str:
    """How a run searches; with the recipe's beams unless `num_beams` is given."""
    return beams(num_beams or recipe.search.num_beams) if recipe.retriever.has_beams else OWN_SEARCH


def read_run_summary(
    run: Path, registries: Registries, split: str = "test", num_beams: int | None = None
) -> RunSummary:
    """The figures with the recipe's beams, or with `num_beams`; `NotMeasured` if these were not evaluated."""
    recipe = load_recipe([run / "recipe.yaml"], [], registries)
    way = way_of(recipe, num_beams)
    found, dense = read_ranks(run, split, way), read_ranks(run, split, TWO_TOWER)
    remark, impossible = _remark(run, split, found)
    if found is None and not impossible:
        raise NotMeasured(
            f"{run} has no figures for split '{split}' ({way}); run: genret evaluate --run {run} --split {split}"
            + ("" if way == OWN_SEARCH else f" --num-beams {num_beams or recipe.search.num_beams}")
        )
    width = None if way == OWN_SEARCH else num_beams or recipe.search.num_beams
    return RunSummary(run=run, recipe=recipe, split=split, num_beams=width, found=found, dense=dense, remark=remark)


def _remark(run: Path, split: str, found: QueryRanks | None) -> tuple[str | None, bool]:
    """What there is to say of the figures `found`, and whether there can be none."""
    summary = read_summary(run)
    evaluation = summary.get("evaluation")
    if evaluation is None:
        uncaptioned = split == "test" and "evaluation" in summary
        return ("the searched pictures have no captions to search by" if uncaptioned else None), uncaptioned
    remarks = [evaluation["remark"]] if evaluation.get("remark") else []
    if found is not None and split == evaluation["split"] and len(found.ranks) < evaluation["num_queries"]:
        remarks.append(
            f"measured by {len(found.ranks):,} of {evaluation['num_queries']:,} queries: pictures of the split have "
            "been removed, and with fewer, each is easier to find"
        )
    impossible = split == "test" and all(value is None for value in evaluation["recall"].values())
    return "; ".join(remarks) or None, impossible


class NotMeasured(GenretError):
    """This split or beam width has not been evaluated yet."""


def measured(ranks: Ints, num_beams: int | None) -> NDArray[np.float64]:
    """(Q,) ranks → (Q, measures) each query's value of every measure; NaN if there are too few beams for it."""
    hits = [np.where(num_beams is None or k <= num_beams, 100.0 * (ranks <= k), np.nan) for k in CUTOFFS]
    gain = np.where(num_beams is None or num_beams >= 10, discounted(ranks, 10), np.nan)
    return np.stack([*hits, reciprocal(ranks), gain], axis=1)


class Figure(NamedTuple):
    mean: float
    spread: float | None = None
    """Standard deviation between seeds (n - 1); None for one"""
    interval: tuple[float, float] | None = None
    """95 % bootstrap confidence interval over queries"""

    def as_json(self) -> dict[str, Any]:
        return self._asdict()

    def text(self, digits: int = 1) -> str:
        return f"{self.mean:.{digits}f}" + (f" ± {self.spread:.{digits}f}" if self.spread is not None else "")


def over_seeds(values: Sequence[float]) -> Figure:
    """Mean and spread of one measure over runs that differ only in their seed."""
    return Figure(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)


def figures(outcomes: Sequence[RunSummary]) -> dict[str, Figure | None]:
    """By measure, over seeds; None if a run lacks it."""
    means = [
        np.full(len(MEASURES), np.nan) if one.found is None else measured(one.found.ranks, one.num_beams).mean(axis=0)
        for one in outcomes
    ]
    columns = zip(MEASURES, np.array(means).T, strict=True)
    return {name: None if np.isnan(column).any() else over_seeds(column) for name, column in columns}


def two_tower(outcomes: Sequence[RunSummary]) -> Recalls | None:
    """Dense search with the same encoder, mean over seeds; None if not stored."""
    found = [one.two_tower for one in outcomes]
    if not found or None in found:
        return None
    return {k: float(np.mean([one[k] for one in found if one])) for k in map(str, CUTOFFS)}


def median_of(outcomes: Sequence[RunSummary]) -> float | None:
    """The median rank of the relevant image, mean over seeds; None if half of a run's queries did not find it."""
    medians = [None if one.found is None else median_rank(one.found.ranks) for one in outcomes]
    known = [median for median in medians if median is not None]
    return float(np.mean(known)) if known and len(known) == len(medians) else None


def text_of(figure: Figure | None, measure: str) -> str:
    return "–" if figure is None else figure.text(digits_of(measure))


def digits_of(measure: str) -> int:
    """Decimals: one for percentages, three for values between 0 and 1."""
    return 1 if measure.startswith("recall") else 3


def name_of(slot: Slot | None) -> str:
    """A component as a table shows it: `paired tf_efficientnet_lite0 starter:minilm`, `karpathy flickr8k`."""
    if slot is None:
        return "–"
    return " ".join([slot.type, *_telling(slot.options.model_dump(mode="json"))])


def _telling(options: dict[str, Any]) -> Iterator[str]:
    for key, value in options.items():
        if key in ("model", "pretrained", "root", "path") and isinstance(value, str):
            yield Path(value).name if key == "root" or value.startswith("/") else value
        elif isinstance(value, dict):
            yield from _telling(value)
