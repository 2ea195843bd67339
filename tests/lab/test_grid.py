"""How grids are spelt: YAML inside, commas between; whatever a recipe can hold survives."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from genret.errors import UsageError
from genret.lab.sweep.grid import Axis, label, override, parse_axes, parse_axis, settings_of, shown
from genret.recipe.draft import Draft
from genret.recipe.plain_yaml import _Dumper

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | WORDS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=8
)


@given(st.lists(VALUES, min_size=1, max_size=5, unique_by=lambda value: json.dumps(value, sort_keys=True)))
def test_commas_inside_of_values_do_not_split_them(values: list[object]) -> None:
    """Every way in which YAML can write a value on one line: as JSON does, and as `dump` does."""
    as_json = ",".join(override("", value)[1:] for value in values)
    assert parse_axis(f"a.b={as_json}") == Axis("a.b", values)
    assert parse_axis(f"a.b={dump_flow(values)}") == Axis("a.b", values)


def dump_flow(values: list[object]) -> str:
    text = yaml.dump(values, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.strip()[1:-1]


@given(VALUES)
def test_an_override_means_its_value(value: object) -> None:
    draft = Draft(())
    draft.read_override(override("a.b", value))
    assert not draft.errors and draft.values == {"a": {"b": value}}


@given(
    st.dictionaries(st.from_regex(r"[a-z_]{1,8}(\.[a-z_]{1,8}){0,2}", fullmatch=True), VALUES, min_size=1, max_size=3)
)
def test_labels_are_file_names(settings: dict[str, object]) -> None:
    name = label(settings)
    assert re.fullmatch(r"[A-Za-z0-9._-]+", name) and name == Path(name).name and not name.startswith((".", "-"))


def test_labels_are_readable() -> None:
    assert label({"identifier.codebook_size": 64, "train.lr": 0.001}) == "codebook_size-64_lr-0.001"
    assert label({"identifier": {"type": "structured", "branching": 8}}) == "identifier-structured-branching-8"
    assert label({"identifier.train.lr": 1, "train.lr": 2}) == "identifier.train.lr-1_train.lr-2", (
        "no tail for two keys"
    )
    assert shown({"type": "rq", "num_levels": 4}) == "{type: rq, num_levels: 4}" and shown(None) == "null"


def test_all_combinations() -> None:
    axes = parse_axes(["a=1,2", "identifier=rq,{type: structured, sizes: [3, 4]}"])
    assert [list(point.values()) for point in settings_of(axes)] == [
        [1, "rq"], [1, {"type": "structured", "sizes": [3, 4]}],
        [2, "rq"], [2, {"type": "structured", "sizes": [3, 4]}],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["a"], "it should look like key=value,value"),
        (["=1,2"], "it should look like"),
        (["a..b=1"], "it should look like"),
        (["a="], "at least one value"),
        (["a=1,1"], "a value occurs twice"),
        (["a=1], [2"], "separate values by commas"),
        (["a={type: rq"], "separate values by commas"),
        (["a=*x"], "aliases"),
        (["a=1", "a=2"], "is given twice"),
        (["search.num_beams=1,many"], "whole numbers from 1, not 'many'"),
        (["search.num_beams=0"], "whole numbers from 1, not 0"),
    ],
)
def test_what_is_no_grid(texts: list[str], said: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_axes(texts)
    assert said in str(error.value) and "\n" not in str(error.value)
