"""Charts as inline SVG, without script or styles: colours come from the page's classes and follow light or dark mode.
Charts are small: pages show several side by side, phones one below the other.

All text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup

from genret.kit.text import clean

WIDTH, HEIGHT = 340, 210
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 38
COLOURS = 6
"""Classes `s0` … `s5` of the style sheet; further series reuse them."""


class Series(NamedTuple):
    name: str
    points: Sequence[tuple[float, float]]
    """Ascending in x"""
    colour: int = 0
    dashed: bool = False
    """For reference lines"""


class Axis(NamedTuple):
    label: str
    ticks: Sequence[float] = ()
    """Default: round numbers"""
    log: bool = False
    from_zero: bool = False
    whole: bool = False
    """Whether ticks are whole numbers, as for epochs"""


def line_chart(title: str, series: Sequence[Series], x: Axis, y: Axis) -> Markup:
    """A figure with title and lines; empty without points. `legend` names the lines."""
    finite = (one._replace(points=[p for p in one.points if all(map(math.isfinite, p))]) for one in series)
    lines = [one for one in finite if one.points]
    points = [point for one in lines for point in one.points]
    if not points:
        return Markup("")
    across = _Scale([px for px, _ in points], x, LEFT, WIDTH - RIGHT)
    up = _Scale([py for _, py in points], y, HEIGHT - BOTTOM, TOP)
    parts = [_grid(across, up)]
    for one in lines:
        places = [(across(px), up(py)) for px, py in one.points]
        kind = Markup("line s{}{}").format(one.colour % COLOURS, " dashed" if one.dashed else "")
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        parts.append(Markup('<polyline class="{}" points="{}"/>').format(kind, path))
        if not one.dashed and len(places) <= 40:
            for (a, b), (px, py) in zip(places, one.points, strict=True):
                said = f"{clean(one.name)}: {_number(py)} at {_number(px)}"
                parts.append(
                    Markup('<circle class="dot s{}" cx="{:.1f}" cy="{:.1f}" r="3"><title>{}</title></circle>').format(
                        one.colour % COLOURS, a, b, said
                    )
                )
    parts.append(_labels(x.label, y.label))
    said = "; ".join(
        f"{clean(one.name)} from {_number(one.points[0][1])} to {_number(one.points[-1][1])}" for one in lines
    )
    return Markup(
        '<figure class="chart"><figcaption>{title}</figcaption>'
        '<svg viewBox="0 0 {w} {h}" role="img" aria-label="{title}: {said}">{parts}</svg></figure>'
    ).format(title=clean(title), w=WIDTH, h=HEIGHT, said=said, parts=Markup("").join(parts))


def legend(series: Sequence[Series]) -> Markup:
    """The legend of one chart, or of several with the same series."""
    return Markup('<div class="legend">{}</div>').format(Markup("").join(_key(one) for one in series))


def bar(start: float, end: float, most: float, kind: str) -> Markup:
    """A floating bar of a waterfall, for a cell of a table: from `start` to `end` on a scale of 0 to `most`.

    `kind`: a class of the style sheet (`total`, `loss`, `gain`). Its value must also be given as text.
    """
    if start == end:
        return Markup("")
    low, high = (200 * max(0.0, min(one, most)) / (most or 1) for one in sorted((start, end)))
    return Markup(
        '<svg class="bar" viewBox="0 0 200 12" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="{}" x="{:.2f}" y="1" width="{:.2f}" height="10"/></svg>'
    ).format(kind, low, max(high - low, 0.8))


def profile(counts: Sequence[int], said: str) -> Markup:
    """How often each code of a level is used, from the most used to the least: an area; flat is good."""
    if not counts or max(counts) == 0:
        return Markup("")
    ordered, width = sorted(counts, reverse=True), 160
    step = width / len(ordered)
    places = [(0.0, 30.0)]
    for number, count in enumerate(ordered):
        height = 30 - 28 * count / ordered[0]
        places += [(number * step, height), ((number + 1) * step, height)]
    places.append((width, 30.0))
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in _thinned(places))
    return Markup(
        '<svg class="profile" viewBox="0 0 160 30" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<polygon points="{}"/></svg>'
    ).format(clean(said), path)


def ticks_of(low: float, high: float, most: int = 5, least_step: float = 0.0) -> list[float]:
    """At most `most` round numbers from `low` to `high`."""
    if not high > low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    while (high - low) / step > most - 1 or step < least_step:
        step *= 2.5 if math.isclose(step / 10 ** math.floor(math.log10(step) + 1e-9), 2) else 2
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


class _Scale:
    """Maps values to positions."""

    def __init__(self, values: Sequence[float], axis: Axis, begin: float, end: float):
        self.log = axis.log and min(values) > 0
        low, high = min(values), max(values)
        if axis.from_zero:
            low = min(low, 0.0)
        if high == low:
            low, high = (low / 1.5, high * 1.5) if self.log else (low - 0.5, high + 0.5)
        given = [tick for tick in axis.ticks if low <= tick <= high]
        self.ticks = given or ([low, high] if self.log else ticks_of(low, high, least_step=1.0 if axis.whole else 0.0))
        if not axis.ticks and not self.log and axis.from_zero:
            step = self.ticks[-1] - self.ticks[-2] if len(self.ticks) > 1 else 1.0
            if high > self.ticks[-1] + 1e-9:
                self.ticks = [*self.ticks, self.ticks[-1] + step]
            high = max(high, self.ticks[-1])
        self._low, self._high = self._on(low), self._on(high)
        self._begin, self._end = begin, end
        step = min((b - a for a, b in pairwise(self.ticks)), default=0.0)
        self._digits = max(0, min(6, 1 - math.floor(math.log10(step) + 1e-9))) if step > 0 else None

    def said(self, tick: float) -> str:
        """With enough digits to distinguish ticks."""
        if tick == int(tick) or self._digits is None:
            return _number(tick)
        return f"{tick:,.{self._digits}f}".rstrip("0")

    def _on(self, value: float) -> float:
        return math.log(value) if self.log else value

    def __call__(self, value: float) -> float:
        return self._begin + (self._on(value) - self._low) / (self._high - self._low) * (self._end - self._begin)


def _grid(across: _Scale, up: _Scale) -> Markup:
    parts = []
    for tick in up.ticks:
        at = up(tick)
        parts.append(
            Markup('<line class="grid" x1="{}" y1="{:.1f}" x2="{}" y2="{:.1f}"/>').format(LEFT, at, WIDTH - RIGHT, at)
        )
        parts.append(
            Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                LEFT - 5, at + 4, up.said(tick)
            )
        )
    last = -math.inf
    for tick in across.ticks:
        at = across(tick)
        if at - last < 20:  # labels would overlap
            continue
        last = at
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                at, HEIGHT - BOTTOM + 15, across.said(tick)
            )
        )
    base = HEIGHT - BOTTOM
    parts.append(Markup('<line class="axis" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(LEFT, base, WIDTH - RIGHT, base))
    return Markup("").join(parts)


def _labels(x: str, y: str) -> Markup:
    return Markup(
        '<text class="label" x="{}" y="{}" text-anchor="end">{}</text>'
        '<text class="label" x="12" y="{}" transform="rotate(-90 12 {})" text-anchor="middle">{}</text>'
    ).format(WIDTH - RIGHT, HEIGHT - 5, clean(x), (HEIGHT - BOTTOM + TOP) / 2, (HEIGHT - BOTTOM + TOP) / 2, clean(y))


def _key(one: Series) -> Markup:
    return Markup(
        '<span class="key"><svg viewBox="0 0 24 10" aria-hidden="true"><line class="line s{}{}" x1="1" y1="5" x2="23" '
        'y2="5"/></svg>{}</span>'
    ).format(one.colour % COLOURS, " dashed" if one.dashed else "", clean(one.name))


def _number(value: float) -> str:
    """Short numbers: 1,234, 51.9, 0.0031."""
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def _thinned(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Drops invisible digits."""
    kept = [places[0]]
    for place in places[1:-1]:
        if abs(place[0] - kept[-1][0]) > 0.3 or abs(place[1] - kept[-1][1]) > 0.3:
            kept.append(place)
    return [*kept, places[-1]]
