"""`genret sweep`: a grid of overrides × seeds as rows of a sweep, and the table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from genret.errors import RecipeError, UsageError
from genret.kit.files import write_json, write_text
from genret.lab.compare.run_summary import MEASURES, text_of, two_tower
from genret.lab.sweep import grid
from genret.lab.sweep.grid import BEAMS, SEED, Axis
from genret.lab.sweep.sweep import RowResult, SweepRow
from genret.plugin.registry import Registries
from genret.recipe.load import load_recipe
from genret.recipe.schema import Recipe
from genret.toolbox.text_table import TextTable


class Plan(NamedTuple):
    """A validated sweep."""

    recipes: list[str]
    overrides: list[str]
    axes: list[Axis]
    settings: list[grid.Settings]
    rows: list[SweepRow]


def seeded(files: Sequence[Path], overrides: Sequence[str], seeds: int | None, registries: Registries) -> list[Recipe]:
    """The recipe with seeds 0, 1, ..., or with its own if `seeds` is None."""
    chosen = [[]] if seeds is None else [[grid.override(SEED, seed)] for seed in range(seeds)]
    return [load_recipe(files, [*overrides, *seed], registries) for seed in chosen]


def plan(
    files: Sequence[Path], overrides: Sequence[str], grids: Sequence[str], seeds: int | None, registries: Registries
) -> Plan:
    """Checks every recipe of the grid; `RecipeError` lists all errors."""
    axes = grid.parse_axes(grids)
    if seeds is not None and any(axis.key == SEED for axis in axes):
        raise UsageError(f"give either --seeds or --grid {SEED}=...")
    rows, faults, points = [], dict[str, None](), grid.settings_of(axes)
    for point in points:
        words = [grid.override(key, value) for key, value in point.items() if key != BEAMS]
        trained = {key: value for key, value in point.items() if key not in (BEAMS, SEED)}
        try:
            recipes = seeded(files, [*overrides, *words], seeds, registries)
            rows.append(SweepRow(grid.label(trained) if trained else _stems(files), recipes, point.get(BEAMS)))
        except RecipeError as error:
            for fault in error.errors:
                given = next((word for word in words if fault.startswith(f"--set {word}:")), None)
                faults[fault if given is None else fault.replace("--set", "--grid", 1)] = None
    if faults:
        raise RecipeError(faults)
    return Plan([str(file) for file in files], list(overrides), axes, points, rows)


def sweep_name(files: Sequence[Path], axes: Sequence[Axis]) -> str:
    """`avg-flickr8k-codebook_size-num_levels`: the folder below `<home>/sweeps`."""
    return "-".join([_stems(files), *(grid.slug(axis.key.rpartition(".")[2]) for axis in axes)])[:120]


def as_json(made: Plan, results: Sequence[RowResult]) -> dict[str, Any]:
    rows = [{"settings": point, **result.as_json()} for point, result in zip(made.settings, results, strict=True)]
    return {"recipes": made.recipes, "set": made.overrides, "split": "test", "rows": rows}


def table(made: Plan, results: Sequence[RowResult]) -> TextTable:
    keys = [axis.key for axis in made.axes]
    rows, remarks = [], dict[str, None]()
    for point, result in zip(made.settings, results, strict=True):
        first = result.outcomes[0] if result.outcomes else None
        dense = two_tower(result.outcomes)
        if result.remark:
            point_text = ", ".join(f"{key}={grid.shown(value)}" for key, value in point.items())
            remarks[f"{point_text}: {result.remark}"] = None
        rows.append(
            [
                *(grid.shown(point[key]) for key in keys),
                result.protocol,
                str(len(result.outcomes)),
                str((first and first.num_beams) or "–"),
                *(_cell(result, measure) for measure in MEASURES),
                "–" if dense is None else " / ".join(f"{value:.1f}" for value in dense.values() if value is not None),
                "–" if result.seconds is None else f"{result.seconds:.0f}",
            ]
        )
    headings = [*keys, "protocol", "n", "beams", *MEASURES, "two-tower", "seconds"]
    what = " ".join([*made.recipes, *(f"--set {override}" for override in made.overrides)])
    notes = [
        "mean ± standard deviation over n seeds; recall in %; two-tower: recall@1 / 5 / 10 of the same encoder; "
        "seconds: what the stages took when they were made, shared ones included",
        *remarks,
    ]
    return TextTable(f"{what}, split 'test'", headings, rows, len(keys) + 1, notes)


def write_table(out: Path, document: dict[str, Any], shown: TextTable) -> None:
    write_json(out / "table.json", document)
    write_text(out / "table.md", shown.markdown())


def _cell(result: RowResult, measure: str) -> str:
    figure = result.figures.get(measure)
    impossible = figure is None and any(one.found is None for one in result.outcomes)
    return "n/a" if impossible else text_of(figure, measure)


def _stems(files: Sequence[Path]) -> str:
    return grid.slug("-".join(file.stem for file in files))
