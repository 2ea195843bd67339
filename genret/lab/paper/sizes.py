"""The paper's Figure 4: queries per second by the number of images, as a table and a chart."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from genret.lab.compare.run_summary import name_of
from genret.lab.paper.paper import PaperTable
from genret.lab.paper.reproduce import Line
from genret.lab.paper.speed import BATCH, Speeds, shown
from genret.lab.sweep.sweep import RowResult
from genret.toolbox.text_table import TextTable

PAPER_IMAGES = 300_000
"""Sizes with figures in the paper (its Table 2)."""
COLOURS = ("#0a58ca", "#b3450b", "#1a7f37", "#8a3ab9")


def as_json(
    table: PaperTable, data: str, lines: Sequence[Line], results: Sequence[RowResult], speeds: Speeds
) -> dict[str, Any]:
    return {
        "title": table.title,
        "on": data,
        **speeds.as_json(),
        "paper_speed_on": table.paper_speed_on,
        "systems": [
            {
                "name": line.of.name,
                "protocol": line.protocol,
                "encoder": name_of(line.row.recipes[0].encoder),
                "runs": [str(one.run) for one in result.outcomes],
                "num_beams": result.outcomes[0].num_beams if result.outcomes else None,
                "speeds": speeds.of(line),
                "paper_queries_per_s": line.of.paper_speed,
                "remark": result.remark,
                "note": line.of.note,
            }
            for line, result in zip(lines, results, strict=True)
        ],
    }


def text_table(table: PaperTable, data: str, lines: Sequence[Line], speeds: Speeds) -> TextTable:
    rows = []
    for unit in speeds.units.values():
        entries = [unit.get(line.row.label, {}) for line in lines]
        images = max((entry["images"] for entry in entries if "images" in entry), default=0)
        figures = [entry.get("queries_per_s") for entry in entries]
        first, second = (*figures, None, None)[:2]
        weights = [f"{entry['bytes_per_image']:,.0f}" if "bytes_per_image" in entry else "–" for entry in entries]
        times = "–" if first is None or second is None else f"{first / second:.2f} ×"
        rows.append([f"{images:,}", *map(shown, figures), times, *weights])
    names = [line.of.name for line in lines]
    paper = ", ".join(f"{line.of.name} {shown(line.of.paper_speed)}" for line in lines)
    headings = [
        "images",
        *(f"{name}, queries/s" for name in names),
        " : ".join(names[:2]),
        *(f"{n}, bytes/image" for n in names),
    ]
    notes = [*speeds.notes(table), f"The paper's: {paper} queries/s at {PAPER_IMAGES:,} images."]
    notes += [f"{line.of.name}: {line.of.note}" for line in lines if line.of.note]
    return TextTable(f"{table.title}, on {data}", headings, rows, 0, notes)


def chart(table: PaperTable, lines: Sequence[Line], speeds: Speeds) -> str | None:
    """A standalone SVG; None if nothing was measured."""
    from genret.lab.report.charts import HEIGHT, WIDTH, Axis, Series, line_chart

    series, sizes = [], set[float]()
    for colour, line in enumerate(lines):
        points = sorted((e["images"], e["queries_per_s"]) for e in speeds.of(line) if "queries_per_s" in e)
        sizes |= {x for x, _ in points}
        series.append(Series(line.of.name, points, colour))
    speeds_seen = [y for one in series for _, y in one.points]
    ticks = [m * 10.0**e for e in range(-3, 7) for m in (1, 2, 5) if speeds_seen and _near(m * 10.0**e, speeds_seen)]
    axes = Axis("images", sorted(sizes), log=True), Axis(f"queries per second, {BATCH} at a time", ticks, log=True)
    drawn = str(line_chart(table.title, series, *axes))
    if "<svg" not in drawn:
        return None
    svg = drawn[drawn.index("<svg") : drawn.index("</svg>")]
    style = ".grid{stroke:#d0d7de}.axis{stroke:#57606a}text{font:10px sans-serif;fill:#24292f}"
    style += ".line{fill:none;stroke-width:2}"
    for colour, value in enumerate(COLOURS):
        style += f".line.s{colour}{{stroke:{value}}}.dot.s{colour}{{fill:{value}}}"
    place = '<text x="330" y="{}" text-anchor="end" style="fill:{}">{}</text>'
    keys = enumerate(zip(COLOURS, lines, strict=False))
    names = "".join(place.format(24 + 13 * row, colour, escape(line.of.name)) for row, (colour, line) in keys)
    opened = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    opened = opened.replace(f"0 0 {WIDTH} {HEIGHT}", f"0 0 {WIDTH + 20} {HEIGHT}", 1)  # room for the last label
    head, body = opened.split(">", 1)
    return f'{head}><style>{style}</style><rect width="100%" height="100%" fill="white"/>{body}{names}</svg>\n'


def _near(tick: float, values: Sequence[float]) -> bool:
    return min(values) <= tick <= max(values)
