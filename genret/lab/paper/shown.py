"""The output of `genret reproduce`: a JSON document, a table, and files of both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from genret.api import Ui
from genret.errors import UsageError
from genret.kit.files import write_json, write_text
from genret.lab.paper import pairs as paper_pairs
from genret.lab.paper import sizes as paper_sizes
from genret.lab.paper import table as paper_table
from genret.lab.paper.effect_checks import effect_checks, effects_text
from genret.lab.paper.paper import DataSet, PaperTable
from genret.lab.paper.reproduce import Line
from genret.lab.paper.speed import measure
from genret.lab.sweep.sweep import Keep, RowResult
from genret.plugin.registry import Registries
from genret.settings import Settings
from genret.toolbox.text_table import TextTable


class Made(NamedTuple):
    document: dict[str, Any]
    table: TextTable
    text: str
    """Below the table"""


class Workplace(NamedTuple):
    out: Path
    registries: Registries
    settings: Settings
    ui: Ui


def checked_sizes(table: PaperTable, sizes: Sequence[int] | None, keep: Keep) -> list[int]:
    """The catalog sizes to measure at; `UsageError` for options that do not apply to this table."""
    if sizes and not table.sizes:
        raise UsageError(f"--sizes says nothing for {table.file_name}, which measures no speed; leave it out")
    if keep != "all" and table.shows != "quality":
        raise UsageError(f"{table.file_name} searches the runs themselves; leave --keep {keep} out")
    return list(sizes or table.sizes)


def make(
    table: PaperTable,
    data: DataSet,
    lines: Sequence[Line],
    results: Sequence[RowResult],
    sizes: Sequence[int],
    at: Workplace,
) -> Made:
    """Measures and shows the table, and writes it beside the runs."""
    if table.shows == "sizes":
        made = _sizes(table, data, lines, results, sizes, at)
    elif table.shows == "pairs":
        made = _pairs(table, data, lines[0], results[0], at)
    else:
        seen = effect_checks(table, data, lines, results)
        speeds = None
        if table.shows == "speed":
            speeds = measure(table, lines, results, sizes, at.out, at.registries, at.settings, at.ui)
        document = paper_table.as_json(table, data, lines, results, seen, speeds)
        shown = paper_table.text_table(table, data, lines, results, speeds)
        made = Made(document, shown, effects_text(seen))
    write_json(at.out / f"{table.file_name}.json", made.document)
    write_text(at.out / f"{table.file_name}.md", f"{made.table.markdown()}\n{made.text}\n")
    return made


def _sizes(
    table: PaperTable,
    data: DataSet,
    lines: Sequence[Line],
    results: Sequence[RowResult],
    sizes: Sequence[int],
    at: Workplace,
) -> Made:
    speeds = measure(table, lines, results, sizes, at.out, at.registries, at.settings, at.ui)
    text, picture = "", at.out / f"{table.file_name}.svg"
    if (drawn := paper_sizes.chart(table, lines, speeds)) is not None:
        write_text(picture, drawn)
        text = f"Drawn in {picture.name}"
    document = paper_sizes.as_json(table, data, lines, results, speeds)
    return Made(document, paper_sizes.text_table(table, data, lines, speeds), text)


def _pairs(table: PaperTable, data: DataSet, line: Line, result: RowResult, at: Workplace) -> Made:
    from genret.lab.report.page import write_report

    found = paper_pairs.pairs_of(line, result, at.registries)
    text, page = "", at.out / f"{table.file_name}.html"
    if found.run is not None:
        write_report([found.run], page, at.registries, at.settings, at.ui, num_queries=0)
        text = f"With the pictures, and what single vokens stand for: {page.name}"
    document = paper_pairs.as_json(table, data, line, result, found)
    return Made(document, paper_pairs.text_table(table, data, line, found), text)
