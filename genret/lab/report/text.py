"""Formats texts and numbers for a page."""

from __future__ import annotations

import math
from typing import Any


def percent(value: float | None) -> str:
    """A percentage, or a sign for a missing one."""
    return "–" if value is None else f"{value:.1f}"


def share(part: float) -> str:
    """A share as a percentage, rounded down: 100.0 is all of them."""
    return f"{math.floor(1000 * part + 1e-9) / 10:.1f}"


def points(value: float) -> str:
    """A difference of percentages, with its sign."""
    return signed(value, 1)


def signed(value: float, digits: int = 0) -> str:
    """A number with its sign; zero has none."""
    text = f"{value:+,.{digits}f}"
    return text[1:] if float(text.replace(",", "")) == 0 else text.replace("-", "−")


def plain_number(value: float, digits: int = 2) -> str:
    """With a typographic minus sign if it is below 0 after rounding."""
    text = f"{value:,.{digits}f}"
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text.replace("-", "−")


def plural(count: int, word: str) -> str:
    """1 query, 5,000 queries"""
    many = f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"
    return f"{count:,} {word if count == 1 else many}"


def listed(names: list[str]) -> str:
    """a, b and c"""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def value_of(value: Any) -> str:
    """An option's value as in a recipe."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {value_of(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(value_of(inner) for inner in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
