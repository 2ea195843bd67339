"""Charts and tables of a report, from a run's stored results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from markupsafe import Markup

from genret.evaluate.metrics import CUTOFFS
from genret.lab.report import charts, words
from genret.lab.report.figures import curve
from genret.lab.report.stored import StoredRun
from genret.lab.report.text import plural
from genret.lab.report.vokens import NamedImages, code_counts

SHOWN_BY_NAME = {
    "protocol", "concepts", "split", "num_queries", "num_images", "num_beams", "recall", "identifier_recall",
    "by_num_beams", "two_tower", "ceiling", "reranked", "ledger", "identifier", "remark", "first_stage",
    "measures", "shared_captions", "confidence", "leakage", "guidance", "self_guidance", "drowned_out",
    "written_levels",
}  # fmt: skip
"""Known keys of an evaluation; others are shown as tables under their own names."""


class LedgerLine(NamedTuple):
    stage: str
    meaning: str
    queries: int
    recall: float
    lost: float | None
    """None for totals"""
    bar: Markup


@dataclass(frozen=True, kw_only=True)
class LevelLine:
    number: int
    size: int | None
    usage: float | None
    entropy: float | None
    perplexity: float | None
    """of the training images"""
    searched_perplexity: float | None
    profile: Markup


def curves_of(runs: Sequence[StoredRun]) -> list[Markup]:
    """recall@k by beams, a chart for each k, with two-tower search and the quantization upper bound as reference
    lines."""
    found, keys = list[Markup](), list[charts.Series]()
    for k in CUTOFFS:
        curves = [curve(one, k) for one in runs]
        widths = sorted({width for points in curves for width, _ in points})
        if not widths:
            continue
        ends = (widths[0], widths[-1]) if len(widths) > 1 else (widths[0] / 2, widths[0] * 2)
        lines = []
        for number, (one, points) in enumerate(zip(runs, curves, strict=True)):
            name = one.name if len(runs) > 1 else "generated"
            if points:
                lines.append(charts.Series(name, [(float(b), v) for b, v in points], number))
        for number, one in enumerate(runs):
            for label, key, colour in (("two-tower", "two_tower", 4), ("ceiling", "ceiling", 5)):
                value = ((one.evaluation or {}).get(key) or {}).get(str(k))
                same = any(line.dashed and line.points[0][1] == value for line in lines)
                if value is not None and not same:
                    own = f"{label} of {one.name}" if len(runs) > 1 and _differ(runs, key, k) else label
                    colour = colour if len(runs) == 1 or not _differ(runs, key, k) else number
                    lines.append(charts.Series(own, [(end, value) for end in ends], colour, dashed=True))
        axis = charts.Axis("beams", [float(width) for width in widths], log=True)
        chart = charts.line_chart(f"R@{k}", lines, axis, charts.Axis("recall in %", from_zero=True))
        if chart:
            found.append(chart)
            keys = keys or lines
    return [*found, charts.legend(keys)] if found else []


def _differ(runs: Sequence[StoredRun], key: str, k: int) -> bool:
    return len({((one.evaluation or {}).get(key) or {}).get(str(k)) for one in runs} - {None}) > 1


def ledger_lines(rows: list[dict[str, Any]], reranks: bool) -> list[LedgerLine]:
    """A waterfall: every row starts where the previous one ended."""
    most = max((row["recall"] for row in rows), default=0.0)
    lines, before = [], 0.0
    for row in rows:
        lost = row.get("lost")
        kind = "total" if lost is None else "loss" if lost >= 0 else "gain"
        bar = charts.bar(0.0 if lost is None else before, row["recall"], most, kind)
        meaning = words.stage_meaning(row["stage"], reranks)
        lines.append(LedgerLine(row["stage"], meaning, row["queries"], row["recall"], lost, bar))
        before = row["recall"]
    return lines


def level_lines(stored: StoredRun, images: NamedImages | None) -> list[LevelLine]:
    quality = stored.quality or {}
    sizes: list[int] = quality.get("codebook_size") or []
    searched = ((stored.evaluation or {}).get("identifier") or {}).get("perplexity") or []
    count = len(sizes) or (images.codes.shape[1] if images is not None else len(searched))
    lines = []
    for level in range(count):
        size = sizes[level] if level < len(sizes) else None
        profile = Markup("")
        if images is not None and level < images.codes.shape[1]:
            counts = code_counts(images, level, size or 0)
            used = sum(1 for one in counts if one)
            said = f"{used} of {plural(len(counts), 'code')} used by the searched pictures, one {max(counts)} times"
            profile = charts.profile(counts, said)
        usage, entropy, perplexity = (_at(quality.get(key), level) for key in ("usage", "entropy", "perplexity"))
        lines.append(
            LevelLine(
                number=level + 1,
                size=size,
                usage=usage,
                entropy=entropy,
                perplexity=perplexity,
                searched_perplexity=_at(searched, level),
                profile=profile,
            )
        )
    return lines


def _at(values: list[float] | None, place: int) -> float | None:
    return values[place] if values is not None and place < len(values) else None


def learning_curves(metrics: list[dict[str, Any]]) -> list[tuple[str, list[Markup]]]:
    """By stage, a chart per loss and one for the figure on the development split; lines of a resumed stage continue."""
    found = []
    stages = list(dict.fromkeys(row["stage"] for row in metrics))
    for stage in stages:
        rows = {
            row["epoch"]: row
            for row in metrics
            if row["stage"] == stage and isinstance(row.get("epoch"), int) and "event" not in row
        }
        keys = list(dict.fromkeys(key for row in rows.values() for key in row if key not in ("stage", "epoch", "step")))
        keys.sort(key=lambda key: {"loss": 0, "dev": 1}.get(key, 2))
        drawn = []
        for key in keys:
            line = [
                (float(epoch + 1), float(rows[epoch][key]))
                for epoch in sorted(rows)
                if isinstance(rows[epoch].get(key), int | float)
            ]
            name = {"loss": "loss, mean of the epoch", "dev": "development split"}.get(key, key)
            axis = charts.Axis("epoch", whole=True)
            if chart := charts.line_chart(
                name, [charts.Series(name, line, 2 if key == "dev" else 0)], axis, charts.Axis("")
            ):
                drawn.append(chart)
        if drawn:
            found.append((stage, drawn))
    return found


def extra_tables(evaluation: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Further figures of other versions or plugins."""
    tables = []
    for key, value in evaluation.items():
        if key not in SHOWN_BY_NAME and value not in (None, [], {}):
            tables.append((key.replace("_", " "), list(_flat(value))))
    return tables


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{path} {key}".strip())
    elif isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        for number, inner in enumerate(value[:50], 1):
            yield from _flat(inner, f"{path} {number}".strip())
    else:
        text = (
            ", ".join(map(str, value[:50]))
            if isinstance(value, list)
            else f"{value:.4g}"
            if isinstance(value, float)
            else str(value)
        )
        yield path, text
