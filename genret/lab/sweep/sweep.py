"""Many runs in one table: each is a run directory found by its recipe, and trained if missing.

Runs share equal stages through the stage store. A failed run is reported and does not end the sweep; an interrupted one
is resumed; a finished one is only read.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from genret.api import Ui
from genret.catalog.place import has_catalog
from genret.errors import GenretError
from genret.folders import read_summary
from genret.lab.compare.run_summary import (
    MEASURES,
    Figure,
    NotMeasured,
    RunSummary,
    figures,
    over_seeds,
    read_run_summary,
    two_tower,
)
from genret.plugin.registry import Registries
from genret.recipe.load import load_recipe
from genret.recipe.schema import Recipe
from genret.run import Run
from genret.settings import Settings
from genret.train.artifacts import content_key
from genret.training import train

Keep = Literal["all", "figures"]

FIGURES = {
    *("recipe.yaml", "environment.json", "metrics.jsonl", "summary.json", "evaluations"),
    *("quality.json", "leakage.json", "confidence.json"),
}
"""Files that `keep="figures"` keeps of a run."""


class SweepRow(NamedTuple):
    """One line of the table."""

    label: str
    """For people and for folders"""
    recipes: list[Recipe]
    """One for each seed"""
    num_beams: int | None = None
    """Number of beams instead of the recipe's; all widths share one training"""
    left_out: str | None = None
    """Why the row is not run; it is shown without figures"""

    @property
    def wanted(self) -> list[Recipe]:
        """The runs of the row."""
        return [] if self.left_out is not None else self.recipes


class Cell(NamedTuple):
    """One run of the sweep."""

    label: str
    folder: Path
    recipe: Recipe
    widths: list[int | None]


class Failure(NamedTuple):
    run: Path
    reason: str


class RowResult(NamedTuple):
    row: SweepRow
    outcomes: list[RunSummary]
    """Summaries of the finished runs"""
    seconds: float | None
    """Mean training time of the runs' stages, shared ones included"""
    failures: list[Failure]

    @property
    def figures(self) -> dict[str, Figure | None]:
        return figures(self.outcomes) if self.outcomes else dict.fromkeys(MEASURES)

    @property
    def protocol(self) -> str:
        """Leakage of searched images into training."""
        return self.row.recipes[0].protocol

    @property
    def remark(self) -> str | None:
        """Why figures are missing or limited; a failed run's reason."""
        if self.row.left_out is not None:
            return self.row.left_out
        if self.failures:
            return "; ".join(dict.fromkeys(f"failed: {failure.reason}" for failure in self.failures))
        return next((one.remark for one in self.outcomes if one.remark), None)

    def as_json(self) -> dict[str, Any]:
        first = self.outcomes[0] if self.outcomes else None
        return {
            "label": self.row.label,
            "n": len(self.outcomes),
            "seeds": [one.recipe.train.seed for one in self.outcomes],
            "runs": [str(one.run) for one in self.outcomes],
            "protocol": self.protocol,
            "num_beams": first and first.num_beams,
            "figures": {name: figure and figure.as_json() for name, figure in self.figures.items()},
            "two_tower": two_tower(self.outcomes),
            "seconds": self.seconds,
            "remark": self.remark,
            "failures": [{"run": str(failure.run), "reason": failure.reason} for failure in self.failures],
        }


def key_of(recipe: Recipe) -> str:
    """The key by which a sweep finds a run directory, independent of its name."""
    return content_key(recipe.canonical())[:12]


class Sweep:
    """The rows of a sweep below one folder."""

    def __init__(
        self, out: Path, registries: Registries, settings: Settings, ui: Ui, keep: Keep = "all", whole: bool = False
    ):
        """`whole`: restores what a search needs in runs that kept only figures."""
        self.out, self.registries, self.settings, self.ui, self.keep = out, registries, settings, ui, keep
        self.whole = whole

    def run(self, rows: Sequence[SweepRow], explain: Callable[[BaseException], str]) -> list[RowResult]:
        """Trains and evaluates what is missing. `explain` turns a run's exception into a message."""
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise GenretError(f"cannot write below {self.out}: {error.strerror or error}; name another --out") from None
        cells = self._cells(rows)
        failed: dict[str, Failure] = {}
        for number, (key, cell) in enumerate(cells.items(), 1):
            where = f"[{number}/{len(cells)}] {cell.folder.name}"
            try:
                if self._is_done(cell):
                    self.ui.note(f"{where}: there already")
                    continue
                self.ui.note(where)
                self._make(cell)
            except Exception as error:
                failed[key] = Failure(cell.folder, explain(error))
                self.ui.warn(f"{where} failed: {failed[key].reason}")
        return [self._result(row, cells, failed) for row in rows]

    def _cells(self, rows: Iterable[SweepRow]) -> dict[str, Cell]:
        """Each run once, in the order in which it is first needed, with all its beam widths."""
        cells: dict[str, Cell] = {}
        for row in rows:
            for recipe in row.wanted:
                key = key_of(recipe)
                if key not in cells:
                    there = sorted(path for path in self.out.glob(f"*-{key}") if path.is_dir())
                    new = self.out / f"{row.label}_s{recipe.train.seed}-{key}"
                    cells[key] = Cell(row.label, there[0] if there else new, recipe, [])
                cells[key].widths.append(row.num_beams)
        return cells

    def _is_done(self, cell: Cell) -> bool:
        kept = _is_whole(cell.folder) or not self.whole
        return kept and self._is_trained(cell) and not list(self._unmeasured(cell))

    def _is_trained(self, cell: Cell) -> bool:
        if not (cell.folder / "summary.json").exists():
            return False
        there = load_recipe([cell.folder / "recipe.yaml"], [], self.registries).canonical()
        return content_key(there) == content_key(cell.recipe.canonical())

    def _unmeasured(self, cell: Cell) -> Iterator[int | None]:
        for width in dict.fromkeys(cell.widths):
            try:
                read_run_summary(cell.folder, self.registries, num_beams=width)
            except NotMeasured:
                yield width

    def _make(self, cell: Cell) -> None:
        if not (self._is_trained(cell) and _is_whole(cell.folder)):
            cell.folder.mkdir(exist_ok=True)
            train(cell.recipe, cell.folder, self.registries, self.settings, self.ui)
        if missing := list(self._unmeasured(cell)):
            own = cell.recipe.search.num_beams
            widths = sorted({width or own for width in missing} - {own}) + ([own] if own in missing else [])
            with Run(cell.folder, self.registries, self.settings) as run:
                run.evaluate(num_beams=widths, ui=self.ui)
        if self.keep == "figures":
            _drop_all_but_figures(cell.folder)

    def _result(self, row: SweepRow, cells: dict[str, Cell], failed: dict[str, Failure]) -> RowResult:
        keys = [key_of(recipe) for recipe in row.wanted]
        done = [cells[key].folder for key in keys if key not in failed]
        outcomes = [read_run_summary(folder, self.registries, num_beams=row.num_beams) for folder in done]
        seconds = [sum(read_summary(folder)["seconds"].values()) for folder in done]
        failures = [failed[key] for key in keys if key in failed]
        return RowResult(row, outcomes, round(over_seeds(seconds).mean, 1) if done else None, failures)


def _is_whole(run: Path) -> bool:
    """Whether it can be searched."""
    return has_catalog(run) and (run / "encoder").exists()


def _drop_all_but_figures(run: Path) -> None:
    """The stages stay in the store."""
    for path in run.iterdir():
        if path.name in FIGURES or path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
