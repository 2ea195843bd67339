"""Charts are well-formed SVG whose marks stand where the numbers say."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as some

from genret.lab.report import charts

NUMBERS = some.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 6))


def dots(chart: str) -> list[tuple[float, float]]:
    return [
        (float(one.get("cx", "")), float(one.get("cy", ""))) for one in ElementTree.fromstring(chart).iter("circle")
    ]


def test_marks_stand_where_the_numbers_say() -> None:
    points = [(1.0, 10.0), (10.0, 30.0), (100.0, 20.0)]
    axis = charts.Axis("beams", [1, 10, 100], log=True)
    chart = charts.line_chart("R@1", [charts.Series("a", points)], axis, charts.Axis("%", from_zero=True))
    (x0, y0), (x1, y1), (x2, y2) = dots(chart)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2), "equal ratios are equally far"
    base = charts.HEIGHT - charts.BOTTOM
    assert (base - y1) / (base - y0) == pytest.approx(3, abs=0.02) and (base - y2) / (base - y0) == pytest.approx(
        2, abs=0.02
    )
    assert (x0, x2) == (charts.LEFT, charts.WIDTH - charts.RIGHT)


@given(some.lists(some.tuples(NUMBERS, NUMBERS), min_size=1, max_size=30, unique_by=lambda p: p[0]).map(sorted))
def test_nothing_leaves_the_paper(points: list[tuple[float, float]]) -> None:
    for y in (charts.Axis("y"), charts.Axis("y", from_zero=True)):
        for x, b in dots(charts.line_chart("t", [charts.Series("a", points)], charts.Axis("x"), y)):
            assert charts.LEFT - 0.1 <= x <= charts.WIDTH - charts.RIGHT + 0.1
            assert charts.TOP - 0.1 <= b <= charts.HEIGHT - charts.BOTTOM + 0.1


@given(NUMBERS, some.floats(1e-3, 1e6))
def test_ticks_are_few_round_and_within(low: float, width: float) -> None:
    ticks = charts.ticks_of(low, low + width)
    assert len(ticks) <= 6 and all(low - 1e-6 * width <= tick <= low + width * (1 + 1e-6) for tick in ticks)


def test_whole_numbers_stay_whole() -> None:
    chart = charts.line_chart(
        "t", [charts.Series("a", [(4.0, 1.0), (6.0, 2.0)])], charts.Axis("epoch", whole=True), charts.Axis("")
    )
    assert ">4.5<" not in chart and ">5<" in chart


def test_close_values_have_different_labels() -> None:
    chart = charts.line_chart(
        "t", [charts.Series("a", [(1.0, 31.601), (2.0, 31.609)])], charts.Axis("x"), charts.Axis("")
    )
    labels = [one.text for one in ElementTree.fromstring(chart).iter("text") if one.get("text-anchor") == "end"]
    assert len(labels) == len(set(labels)), labels


def test_text_is_escaped() -> None:
    name = '<script>"&'
    drawn = charts.line_chart(name, [charts.Series(name, [(1.0, 2.0)])], charts.Axis(name), charts.Axis(name))
    drawn += charts.legend([charts.Series(name, [(1.0, 2.0)])]) + charts.profile([3, 1], name)
    assert "<script" not in drawn and "&lt;script&gt;" in drawn


def test_bars_float() -> None:
    (rect,) = ElementTree.fromstring(charts.bar(60, 45, 80, "loss"))
    assert (float(rect.get("x", "")), float(rect.get("width", ""))) == (112.5, 37.5)
    assert charts.bar(5, 5, 80, "loss") == "" and charts.bar(0, 0, 0, "total") == ""


def test_nothing_to_draw() -> None:
    assert charts.line_chart("t", [charts.Series("a", [])], charts.Axis("x"), charts.Axis("y")) == ""
    assert charts.profile([], "") == "" and charts.profile([0, 0], "") == ""
    nothing = [(1.0, float("nan")), (2.0, 3.0)]
    assert "nan" not in charts.line_chart("t", [charts.Series("a", nothing)], charts.Axis("x"), charts.Axis("y"))
