"""Grids of overrides: `identifier.codebook_size=64,128` × `identifier=rq,{type: structured}` × seeds.

Parses grids and names their points.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

from genret.errors import UsageError
from genret.recipe.plain_yaml import parse

BEAMS = "search.num_beams"
"""The key whose values share one training: a run is evaluated with several beam widths."""
SEED = "train.seed"

_NOT_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""Characters that are valid in JSON but not in YAML, or a line break there."""

Settings = dict[str, Any]
"""Values by key path."""


class Axis(NamedTuple):
    key: str
    values: list[Any]


def parse_axis(text: str) -> Axis:
    """ "key=v1,v2": the values are YAML, so mappings and quoted commas are kept."""
    key, equals, values = text.partition("=")
    key = key.strip()
    if not equals or not all(part.strip() for part in key.split(".")):
        raise UsageError(f"--grid {text}: it should look like key=value,value, e.g. identifier.codebook_size=64,128")
    try:
        found = parse(f"[{values}]").value
    except UsageError as error:
        raise UsageError(f"--grid {text}: {error}; separate values by commas, quote those that hold one") from None
    if not isinstance(found, list) or not found:
        raise UsageError(f"--grid {text}: give at least one value")
    if len({json.dumps(value, sort_keys=True) for value in found}) < len(found):
        raise UsageError(f"--grid {text}: a value occurs twice")
    return Axis(key, found)


def parse_axes(texts: Sequence[str]) -> list[Axis]:
    axes = [parse_axis(text) for text in texts]
    keys = [axis.key for axis in axes]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise UsageError(f"--grid {twice[0]} is given twice; put all its values into one: --grid {twice[0]}=v1,v2")
    for axis in axes:
        wrong = [value for value in axis.values if type(value) is not int or not 0 < value < 100_000]
        if axis.key == BEAMS and wrong:
            raise UsageError(f"--grid {BEAMS}: beams are whole numbers from 1, not {wrong[0]!r}")
    return axes


def settings_of(axes: Sequence[Axis]) -> list[Settings]:
    """One per point of the grid; the last axis varies fastest."""
    return [
        dict(zip((axis.key for axis in axes), values, strict=True)) for values in product(*(a.values for a in axes))
    ]


def override(key: str, value: Any) -> str:
    """In the format of `--set`."""
    text = json.dumps(value, ensure_ascii=False)
    return f"{key}={_NOT_YAML.sub(_escaped, text)}"


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def label(settings: Settings) -> str:
    """A name for people and for folders: `codebook_size-64_num_levels-4`."""
    tails = [key.rpartition(".")[2] for key in settings]
    words = (
        f"{tail if tails.count(tail) == 1 else key}-{_words(value)}"
        for (key, value), tail in zip(settings.items(), tails, strict=True)
    )
    return "_".join(slug(word) for word in words)


def slug(text: str) -> str:
    """Makes a valid file name on any system."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")[:60] or "x"


def shown(value: Any) -> str:
    """A value in a table, as typed on the command line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(inner)}" for key, inner in value.items()) + "}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return "-".join(_words(inner) if key == "type" else f"{key}-{_words(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return "-".join(map(_words, value))
    return shown(value)
