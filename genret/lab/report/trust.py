"""The report's sections on reliability: overlaps of splits, and the quality of the confidence."""

from __future__ import annotations

from typing import Any, NamedTuple

from markupsafe import Markup

from genret.kit.text import clean
from genret.lab.leakage.leakage import sentences
from genret.lab.report import charts
from genret.lab.report.stored import StoredRun


class Doubt(NamedTuple):
    """How well a search's confidence separates queries with an answer from queries without."""

    said: list[str]
    thresholds: list[dict[str, float | None]]
    """In percent: `precision` and `recall` of answerable queries, `rejected` of unanswerable ones"""
    chart: Markup


def leaks_of(stored: StoredRun) -> list[str]:
    """Empty for evaluations of versions without this check, or if nothing was measured."""
    evaluation = stored.evaluation or {}
    if "leakage" not in evaluation:
        return []
    lines = sentences(evaluation["leakage"], evaluation["split"])
    return [line[:1].upper() + line[1:] for line in map(clean, lines)]


def doubt_of(evaluation: dict[str, Any]) -> Doubt | None:
    told = evaluation.get("confidence")
    if not told:
        return None
    said = [
        f"Asked are {told['num_queries']:,} queries of “{told['split']}”, each with all pictures there and again "
        f"without those that answer it or look like it. In {100 * told['auroc']:.0f} % of all comparisons the "
        "confidence is higher where there is an answer (AUROC; 50 % is chance)."
    ]
    if (alone := told.get("auroc_no_answer")) is not None:
        said.append(
            f"Where only the answer itself is missing, and pictures like it are not, it is {100 * alone:.0f} %."
        )
    said.append(
        f"On average it is {100 * told['ece']:.0f} points from the share of answerable queries (expected calibration "
        f"error). It was fitted on “{told['fitted']['split']}”."
    )
    points = [(one["confidence"], one["answerable"]) for one in told["bins"]]
    lines = [
        charts.Series("queries with about this confidence", sorted(points)),
        charts.Series("as it should be", [(0.0, 0.0), (1.0, 1.0)], 4, dashed=True),
    ]
    axes = charts.Axis("confidence", [0, 0.25, 0.5, 0.75, 1]), charts.Axis("answerable", from_zero=True)
    chart = charts.line_chart("Confidence and what came of it", lines, *axes)
    return Doubt(said, told["thresholds"], chart + charts.legend(lines) if chart else chart)
