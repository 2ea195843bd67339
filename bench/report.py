"""Results of a benchmark: rows, bounds and checks of each section, as JSON for `bench.page` and `bench.plot`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.machine import sentence
from genret.lab.speed.speed import Timing

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]


class Bar(NamedTuple):
    """A bound of the project, and the measured value."""

    name: str
    value: float
    limit: float
    at_least: bool = False
    unit: str = "×"

    @property
    def passed(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit


class Section(NamedTuple):
    title: str
    columns: Sequence[str]
    rows: list[Row]
    bars: list[Bar] = []
    checks: dict[str, Any] = {}
    """A verified property, such as that two methods find the same."""


def row(timing: Timing, batch: int = 1, **facts: Any) -> Row:
    """A row of facts with latency of the whole batch, its quartiles, and queries per second."""
    return facts | {
        "batch": batch,
        "ms": 1000 * timing.median,
        "low": 1000 * timing.low,
        "high": 1000 * timing.high,
        "best": 1000 * timing.best,
        "queries_per_s": batch / timing.median,
        "rounds": timing.rounds,
    }


def find(rows: Iterable[Row], **facts: Any) -> Row | None:
    """The one row with these facts."""
    found = [row for row in rows if all(row.get(key) == value for key, value in facts.items())]
    assert len(found) <= 1, f"several rows with {facts}"
    return found[0] if found else None


def ratio(rows: Sequence[Row], over: dict[str, Any], under: dict[str, Any], of: str = "ms") -> float | None:
    """The ratio of two rows' medians; None if one is missing."""
    above, below = find(rows, **over), find(rows, **under)
    return above[of] / below[of] if above and below else None


def bars(*candidates: Bar | None) -> list[Bar]:
    return [bar for bar in candidates if bar is not None]


def bar(name: str, value: float | None, limit: float, at_least: bool = False, unit: str = "×") -> Bar | None:
    return None if value is None else Bar(name, value, limit, at_least, unit)


# ------------------------------------------------------------------------------------------------------------ JSON
def as_json(section: Section, measured: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": section.title,
        "measured": measured,
        "options": options,
        "columns": list(section.columns),
        "rows": section.rows,
        "bars": [bar._asdict() | {"passed": bar.passed} for bar in section.bars],
        "checks": section.checks,
    }


def save(path: Path, name: str, section: dict[str, Any]) -> None:
    """Writes a section to the file at `path`, replacing the one of that name."""
    known = load(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known | {name: section}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(path: Path) -> dict[str, Any]:
    """The sections by name; empty without a file."""
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return result


# ------------------------------------------------------------------------------------------------------------ Markdown
HEADINGS = {
    "system": "system",
    "pictures": "pictures",
    "tower": "tower",
    "views": "views",
    "processor_seconds": "processor's seconds",
    "to_imports": "× imports",
    "to_first": "× the first",
    "threads": "threads",
    "times_as_fast": "× as fast",
    "processor_times": "× as fast by it",
    "cosine": "mean cosine",
    "least_cosine": "least cosine",
    "processor_ms": "processor's ms",
    "processor_to_floor": "× floor's",
    "backbone": "model",
    "images": "images",
    "batch": "batch",
    "beams": "beams",
    "ms": "ms (quartiles)",
    "queries_per_s": "queries/s",
    "to_floor": "× floor",
    "to_select": "× SELECT",
    "seconds": "seconds",
    "mb": "MB",
    "peak_mb": "peak MB",
    "bytes_per_image": "bytes/image",
    "recall": "found of exact top 20",
    "server": "server",
    "clients": "clients",
    "minute": "minute",
    "answers": "answers",
    "errors": "errors",
    "cpu_ms": "CPU ms/query",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "resident_mb": "resident MB",
    "alone_ms": "ms alone",
    "beside_ms": "ms beside a busy process",
    "to_alone": "× alone",
    "note": "",
}
_LEFT = {"system", "pictures", "backbone", "note", "server"}


def table(section: dict[str, Any]) -> str:
    """A section's rows as Markdown."""
    columns = section["columns"]
    rule = ["---" if column in _LEFT else "---:" for column in columns]
    cells = [[_cell(column, row) for column in columns] for row in section["rows"]]
    lines = [[HEADINGS[column] for column in columns], rule, *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def bar_table(bars: Iterable[dict[str, Any]]) -> str:
    """Bounds as Markdown: required and measured values."""
    lines = [["", "measured", "asked", ""], ["---", "---:", "---:", "---"]]
    for bar in bars:
        asked = f"{'≥' if bar['at_least'] else '≤'} {number(bar['limit'])} {bar['unit']}"
        verdict = "pass" if bar["passed"] else "**fail**"
        lines.append([bar["name"], f"{number(bar['value'])} {bar['unit']}", asked, verdict])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def check(name: str, found: Any) -> str:
    """A check as Markdown: a list of uniform mappings as a table, otherwise a line."""
    title = name[0].upper() + name[1:]
    if not isinstance(found, list):
        shown = [f"{key}: {value}" for key, value in found.items()] if isinstance(found, dict) else [str(found)]
        return f"{title}: {', '.join(shown)}."
    if not found:
        return f"{title}: nothing to say."
    lines = [list(found[0]), ["---"] * len(found[0]), *([_plain(value) for value in entry.values()] for entry in found)]
    return f"{title}:\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _plain(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    return number(value) if isinstance(value, (int, float)) else str(value)


def _cell(column: str, row: Row) -> str:
    value = row.get(column)
    if value is None:
        return ""
    if column == "images":
        return short(value)
    if column == "ms" and "low" in row:
        return f"{number(value)} ({number(row['low'])}–{number(row['high'])})"
    return number(value) if isinstance(value, (int, float)) else str(value)


def number(value: float) -> str:
    """Three significant digits."""
    if value == 0 or isinstance(value, int):
        return f"{value:,}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 0.001:
        return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
    return f"{value:.1e}"


def short(count: int) -> str:
    """1k, 0.3M, 100M"""
    if count >= 300_000:
        return f"{count / 1e6:g}M"
    return f"{count / 1000:g}k" if count >= 1000 else str(count)


def page(sections: dict[str, Any], heading: bool = True) -> str:
    """All measurements as a Markdown document."""
    parts = []
    for section in sections.values():
        parts += [f"## {section['title']}"] if heading else []
        parts += [bar_table(section["bars"])] if section["bars"] else []
        parts += [table(section), *(check(name, found) for name, found in section["checks"].items())]
        parts.append(f"Measured on {sentence(section['measured'])}.")
    return "\n\n".join(parts) + "\n"
