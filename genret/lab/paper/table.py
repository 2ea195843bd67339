"""A table of the paper with its rows' figures beside ours, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genret.evaluate.metrics import CUTOFFS
from genret.lab.compare.run_summary import name_of, text_of, two_tower
from genret.lab.paper.effect_checks import EffectCheck
from genret.lab.paper.paper import REPORTED_ON, DataSet, PaperTable, reported_on
from genret.lab.paper.reproduce import Line
from genret.lab.paper.speed import Speeds
from genret.lab.sweep.sweep import RowResult
from genret.toolbox.text_table import TextTable


def as_json(
    table: PaperTable,
    data: DataSet,
    lines: Sequence[Line],
    results: Sequence[RowResult],
    found: Sequence[EffectCheck],
    speeds: Speeds | None = None,
) -> dict[str, Any]:
    source = reported_on(data, table)
    rows = [
        {
            "name": line.of.name,
            "protocol": line.protocol,
            "data": name_of(line.row.recipes[0].dataset),
            "encoder": name_of(line.row.recipes[0].encoder),
            **result.as_json(),
            "paper": _by_cutoff(line.of.paper.get(source)),
            "note": line.of.note,
            **({} if speeds is None else {"speeds": speeds.of(line), "paper_queries_per_s": line.of.paper_speed}),
        }
        for line, result in zip(lines, results, strict=True)
    ]
    measured = {} if speeds is None else speeds.as_json() | {"paper_speed_on": table.paper_speed_on}
    return {
        "title": table.title,
        "on": data,
        "split": "test",
        "paper_data": REPORTED_ON[source],
        "rows": rows,
        "effect_checks": [vars(check) for check in found],
        **measured,
    }


def text_table(
    table: PaperTable,
    data: DataSet,
    lines: Sequence[Line],
    results: Sequence[RowResult],
    speeds: Speeds | None = None,
) -> TextTable:
    source = reported_on(data, table)
    rows, remarks = [], dict[str, None]()
    for line, result in zip(lines, results, strict=True):
        first = result.outcomes[0] if result.outcomes else None
        dense = two_tower(result.outcomes)
        paper = line.of.paper.get(source)
        rows.append(
            [
                line.of.name,
                line.protocol,
                ",".join(str(one.recipe.train.seed) for one in result.outcomes) or "–",
                str((first and first.num_beams) or "–"),
                *(_ours(result, f"recall@{k}") for k in CUTOFFS),
                *_theirs(paper),
                "–" if dense is None else " / ".join(f"{value:.1f}" for value in dense.values() if value is not None),
                *([] if speeds is None else speeds.cells(line)),
            ]
        )
        for words in (result.remark, line.of.note):
            if words:
                remarks[f"{line.of.name}: {words}"] = None
    headings = ["", "protocol", "seeds", "beams", *(f"R@{k}" for k in CUTOFFS), *(f"paper R@{k}" for k in CUTOFFS)]
    encoders = dict.fromkeys(name_of(line.row.recipes[0].encoder) for line in lines)
    notes = [
        f"Ours: {name_of(lines[0].row.recipes[0].dataset)}, split 'test', encoder {'; '.join(encoders)}; recall in %, "
        "mean ± standard deviation over seeds; two-tower: recall@1 / 5 / 10 of the same encoder's dense search.",
        f"The paper's (arXiv 2407.17274): {REPORTED_ON[source]}.",
        *([] if speeds is None else speeds.notes(table)),
        *remarks,
    ]
    headings += ["two-tower", *([] if speeds is None else speeds.headings())]
    return TextTable(f"{table.title}, on {data}", headings, rows, 3, notes)


def _ours(result: RowResult, measure: str) -> str:
    figure = result.figures.get(measure)
    if figure is None and (result.row.left_out or "").startswith("not run"):
        return "not run"
    if figure is None:
        return "n/a" if result.row.left_out or any(one.found is None for one in result.outcomes) else "–"
    return text_of(figure, measure)


def _theirs(figures: Sequence[float | None] | None) -> list[str]:
    return [
        "–" if value is None else f"{value:.{1 if value >= 1 else 2}f}" for value in figures or [None] * len(CUTOFFS)
    ]


def _by_cutoff(figures: Sequence[float | None] | None) -> dict[str, float | None] | None:
    return None if figures is None else {str(k): value for k, value in zip(CUTOFFS, figures, strict=True)}
