"""`genret compare`: finished runs side by side, with significance tests of their differences.

Runs of one recipe that differ only in their seed form one group: its figures are means over seeds, and tests use the
mean of each query. Only stored evaluations are read; no model is loaded.

Q queries   M measures
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from genret.errors import GenretError
from genret.kit.arrays import Ints
from genret.lab.compare.paired import paired
from genret.lab.compare.run_summary import (
    MEASURES,
    Figure,
    RunSummary,
    digits_of,
    figures,
    measured,
    median_of,
    name_of,
    text_of,
    two_tower,
)
from genret.lab.compare.significance import bootstrap_intervals, holm, randomization_test


class Contestant(NamedTuple):
    """One run, or the runs of one recipe with several seeds."""

    name: str
    outcomes: list[RunSummary]
    figures: dict[str, Figure | None]
    values: NDArray[np.float64] | None
    """(Q, M) each query's mean over seeds, NaN where unmeasured; None if the runs have no figures"""

    def as_json(self) -> dict[str, Any]:
        first, recipe = self.outcomes[0], self.outcomes[0].recipe
        return {
            "name": self.name,
            "runs": [str(one.run) for one in self.outcomes],
            "seeds": [one.recipe.train.seed for one in self.outcomes],
            "retriever": recipe.retriever.type,
            "identifier": recipe.identifier.type if recipe.identifier and recipe.has_identifiers else None,
            "protocol": recipe.protocol,
            "data": name_of(recipe.dataset),
            "encoder": name_of(recipe.encoder),
            "num_beams": first.num_beams,
            "guidance": recipe.guidance,
            "self_guidance": recipe.self_guidance,
            "rerank": None if recipe.rerank is None else name_of(recipe.rerank),
            "figures": {name: figure and figure.as_json() for name, figure in self.figures.items()},
            "median_rank": median_of(self.outcomes),
            "two_tower": two_tower(self.outcomes),
            "remark": first.remark,
        }


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """One paired test: the difference of `name` and `against`."""

    name: str
    against: str
    measure: str
    difference: float
    interval: tuple[float, float]
    """95 % bootstrap confidence interval of the difference"""
    p: float
    """Fisher's randomization test, two-sided"""
    p_holm: float
    """p-value adjusted for the number of tests of this measure"""


class Comparison(NamedTuple):
    split: str
    num_queries: int | None
    contestants: list[Contestant]
    tests: list[PairedTest]

    def as_json(self) -> dict[str, Any]:
        return {
            "split": self.split,
            "num_queries": self.num_queries,
            "runs": [one.as_json() for one in self.contestants],
            "tests": [vars(test) for test in self.tests],
        }

    def tables(self) -> list[Any]:
        """Rich tables for people."""
        return [_figure_table(self), *([_test_table(self)] if self.tests else [])]


def compare(outcomes: Sequence[RunSummary], all_pairs: bool = False) -> Comparison:
    """Compares all runs with the first, or all pairs; `GenretError` if the runs have different queries."""
    rows = _paired_ranks(outcomes)
    seeds: dict[str, list[int]] = {}
    for place, one in enumerate(outcomes):
        seeds.setdefault(_experiment(one), []).append(place)
    for places in seeds.values():
        places.sort(key=lambda place: outcomes[place].recipe.train.seed)
    names = _names([outcomes[places[0]].run for places in seeds.values()])
    contestants = [
        _contestant(name, [outcomes[p] for p in places], [rows[p] for p in places])
        for name, places in zip(names, seeds.values(), strict=True)
    ]
    pairs = [(a, b) for a, b in combinations(contestants, 2) if all_pairs or a is contestants[0]]
    asked = next((len(one.values) for one in contestants if one.values is not None), None)
    return Comparison(outcomes[0].split, asked, contestants, _tests(pairs))


def difference(name: str, outcomes: list[RunSummary], against: str, others: list[RunSummary]) -> list[PairedTest]:
    """Differences between runs by measure; empty if there are no figures."""
    rows = _paired_ranks([*outcomes, *others])
    one = _contestant(name, outcomes, rows[: len(outcomes)])
    other = _contestant(against, others, rows[len(outcomes) :])
    return _tests([(other, one)])


def _paired_ranks(outcomes: Sequence[RunSummary]) -> list[Ints | None]:
    """Each run's ranks, in a common order of queries."""
    there = [(place, one) for place, one in enumerate(outcomes) if one.found is not None]
    rows: list[Ints | None] = [None] * len(outcomes)
    for place, one in there:
        first = there[0][1]
        assert one.found is not None and first.found is not None
        both = paired([first.found, one.found])
        if both is None:
            raise GenretError(
                f"{one.run} and {first.run} were not asked the same queries over the same images (split "
                f"'{one.split}'), so their difference says nothing; compare runs of one data set and split"
            )
        rows[place] = both[1]
    return rows


def _contestant(name: str, outcomes: list[RunSummary], rows: list[Ints | None]) -> Contestant:
    found = figures(outcomes)
    if any(row is None for row in rows):
        return Contestant(name, outcomes, found, None)
    values = np.mean([measured(r, o.num_beams) for r, o in zip(rows, outcomes, strict=True) if r is not None], axis=0)
    intervals = bootstrap_intervals(values)
    with_intervals = {
        measure: figure and figure._replace(interval=(float(low), float(high)))
        for (measure, figure), (low, high) in zip(found.items(), intervals, strict=True)
    }
    return Contestant(name, outcomes, with_intervals, values)


def _tests(pairs: list[tuple[Contestant, Contestant]]) -> list[PairedTest]:
    tests = []
    for against, one in pairs:
        if one.values is None or against.values is None:
            continue
        differences = one.values - against.values
        if one.outcomes[0].num_beams != against.outcomes[0].num_beams:  # one ranks more images than the other
            differences[:, MEASURES.index("mrr")] = np.nan
        there = ~np.isnan(differences).any(axis=0)
        p_values, intervals = np.full(len(MEASURES), np.nan), np.full((len(MEASURES), 2), np.nan)
        p_values[there] = randomization_test(differences[:, there])
        intervals[there] = bootstrap_intervals(differences[:, there])
        for column in np.flatnonzero(there):
            low, high = intervals[column]
            p = float(p_values[column])
            test = PairedTest(
                name=one.name,
                against=against.name,
                measure=MEASURES[column],
                difference=float(differences[:, column].mean()),
                interval=(float(low), float(high)),
                p=p,
                p_holm=p,
            )
            tests.append(test)
    for measure in MEASURES:
        places = [place for place, test in enumerate(tests) if test.measure == measure]
        for place, p in zip(places, holm([tests[place].p for place in places]), strict=True):
            tests[place] = replace(tests[place], p_holm=p)
    return tests


def _experiment(one: RunSummary) -> str:
    """The common key of runs that differ only in their seed."""
    plain = one.recipe.canonical()
    plain["train"] = {key: value for key, value in plain["train"].items() if key != "seed"}
    return json.dumps(plain, sort_keys=True)


def _names(runs: list[Path]) -> list[str]:
    """The directories' names if these are unique."""
    short = [run.resolve().name for run in runs]
    return short if len(set(short)) == len(runs) else [str(run) for run in runs]


# ------------------------------------------------------------------------------------------------ tables
def _figure_table(found: Comparison) -> Table:
    queries = f"{found.num_queries:,} queries, " if found.num_queries else ""
    table = Table(
        title=f"{queries}split '{found.split}'",
        caption="recall in %, mrr and ndcg@10 from 0 to 1; [95 % bootstrap interval over queries]; "
        "± standard deviation over seeds",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("run", overflow="fold")
    for heading in ("identifier", "protocol", "data", "encoder", "beams", "seeds"):
        table.add_column(heading)
    for measure in MEASURES:
        table.add_column(measure, justify="right")
    table.add_column("median rank", justify="right")
    for one in found.contestants:
        facts = one.as_json()
        table.add_row(
            one.name,
            facts["identifier"] or facts["retriever"],
            facts["protocol"],
            facts["data"],
            facts["encoder"],
            _search_of(facts),
            ",".join(map(str, facts["seeds"])),
            *([_with_interval(one.figures[measure], measure) for measure in MEASURES]),
            "–" if facts["median_rank"] is None else f"{facts['median_rank']:.1f}",
        )
        if one.outcomes[0].remark:
            table.add_row("", f"({one.outcomes[0].remark})")
    return table


def _search_of(facts: dict[str, Any]) -> str:
    """Beams, guidance (γ) and reranker."""
    guidance = f", guidance {facts['guidance']:g}" if facts["guidance"] else ""
    guidance += f", self-guidance {facts['self_guidance']:g}" if facts["self_guidance"] else ""
    return str(facts["num_beams"] or "–") + guidance + (f", rerank {facts['rerank']}" if facts["rerank"] else "")


def _with_interval(figure: Figure | None, measure: str) -> str:
    if figure is None or figure.interval is None:
        return text_of(figure, measure)
    digits = digits_of(measure)
    low, high = (f"{bound:.{digits}f}" for bound in figure.interval)
    return f"{figure.text(digits)}\n[{low}, {high}]"


def _test_table(found: Comparison) -> Table:
    table = Table(
        title="Paired over queries",
        caption="difference [95 % bootstrap interval]; p: Fisher's randomization test, two-sided, "
        "adjusted for the number of tests (Holm); mrr is not compared between searches of different widths",
        title_justify="left",
        caption_justify="left",
    )
    for heading in ("run", "against", *MEASURES):
        table.add_column(heading)
    rows: dict[tuple[str, str], dict[str, PairedTest]] = {}
    for test in found.tests:
        rows.setdefault((test.name, test.against), {})[test.measure] = test
    for (name, against), tests in rows.items():
        table.add_row(name, against, *(_test_text(tests.get(measure)) for measure in MEASURES))
    return table


def _test_text(test: PairedTest | None) -> str:
    if test is None:
        return "–"
    digits = digits_of(test.measure)
    low, high = (f"{bound:+.{digits}f}" for bound in test.interval)
    p = "p < 0.001" if test.p_holm < 0.001 else f"p = {test.p_holm:.3f}"
    return f"{test.difference:+.{digits}f} [{low}, {high}]\n{p}"
