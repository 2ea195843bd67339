"""The paper's Figure 4 with our results: queries per second by the number of images; and latency."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.paradigms import PAPER, PAPER_SIZE
from bench.report import Row

_COLOURS = {"AVG": "#0072b2", "two-tower, exact": "#d55e00", "two-tower, HNSW": "#e69f00", "GRACE": "#009e73"}
_DASHES = ["-", "--", ":"]
_CIRCLES = {"AVG": "#0072b2", "CLIP": "#d55e00"}


def draw(sections: dict[str, Any], path: Path) -> bool:
    """Writes the figure; False if matplotlib or the measurements are missing."""
    if "paradigms" not in sections:
        return False
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("svg")
    from matplotlib import pyplot

    rows = sections["paradigms"]["rows"]
    with pyplot.rc_context({"svg.hashsalt": "genret", "font.size": 9}):
        figure, (speed, latency) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
        _curves(speed, rows, 16, lambda row: row["queries_per_s"])
        _curves(speed, rows, 1, lambda row: row["queries_per_s"], only=("GRACE",))
        _curves(latency, rows, 1, lambda row: row["ms"])
        for name, value in PAPER.items():
            if name in _CIRCLES:
                speed.plot(
                    PAPER_SIZE, value, "o", mfc="none", color=_CIRCLES[name], label=f"{name}, the paper's Table 2"
                )
        speed.set(title="16 queries at a time (GRACE: 1)", ylabel="queries per second")
        latency.set(title="one query at a time", ylabel="milliseconds")
        for axes in (speed, latency):
            axes.set(xscale="log", yscale="log", xlabel="images")
            axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
        speed.legend(fontsize=7, loc="best")
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
    return True


def _curves(
    axes: Any,
    rows: list[Row],
    batch: int,
    value: Callable[[Row], float],
    only: tuple[str, ...] = ("AVG", "two", "GRACE"),
) -> None:
    dashes: dict[str, Iterator[str]] = {}
    for system, model in dict.fromkeys((row["system"], row.get("backbone")) for row in rows):
        points = [row for row in rows if (row["system"], row.get("backbone")) == (system, model) and "ms" in row]
        points = sorted(
            (row for row in points if row["batch"] == batch and row.get("images")), key=lambda r: r["images"]
        )
        if system not in _COLOURS or not system.startswith(only) or not points:
            continue
        style = next(dashes.setdefault(system, iter(_DASHES)))
        computed = " (computed)" if points[0].get("computed") else ""
        axes.plot(
            [row["images"] for row in points], [value(row) for row in points], style, marker=".",
            color=_COLOURS[system], label=f"{system}, {model}{computed}",
        )  # fmt: skip
