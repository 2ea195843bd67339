"""YAML without traps, against PyYAML's own safe loader and by hostile input."""

from __future__ import annotations

import math
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from genret.errors import UsageError
from genret.recipe.plain_yaml import dump, parse

scalars = st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "no",
        "1e-3",
        "0o17",
        "0x1F",
        "~",
        "",
        "null",
        "2024-01-01",
        "1:30",
        "<<",
        "=",
        ".5",
        "1.",
        "a: b",
        "- x",
        "#",
        "1_0",
    ]
)
values = st.recursive(
    scalars | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


@given(values)
def test_what_is_dumped_is_parsed_again(value):
    again = parse(dump(value)).value
    assert again == value and repr(again) == repr(value)  # repr tells 1 from True and 1.0


@given(values)
def test_any_yaml_reader_reads_the_same(value):
    assert repr(yaml.safe_load(dump(value))) == repr(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("0o17", 15),
        ("010", 10),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("'5'", "5"),
        ("~", None),
        ("", None),
        (".inf", ".inf"),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    parsed = parse(text).value
    assert parsed == value and type(parsed) is type(value)


def test_lines_of_every_key():
    parsed = parse("a:\n  b: [1,\n      {c: 2}]\n\nd: x\n")
    assert parsed.value == {"a": {"b": [1, {"c": 2}]}, "d": "x"}
    assert parsed.lines == {
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "b", 0): 2,
        ("a", "b", 1): 3,
        ("a", "b", 1, "c"): 3,
        ("d",): 5,
    }


BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "aliases"),
        ("a: &a [*a]", "aliases"),
        ("a: !!python/object/apply:os.system [ls]", "tags"),
        ("a: !!str 1", "tags"),
        ("a: 1\na: 2", "line 2: the key 'a' occurs twice"),
        ("a: {b: 1, b: 2}", "twice"),
        ("? [a]\n: 1", "a key must be a word"),
        ("a: 1\n---\nb: 2", "second document"),
        ("[" * 100, "nested more than"),
        ("a: [1, 2", "line 1"),
        ("a: b: c", "line 1"),
        ("\x00", "special characters"),
        ("a: " + "9" * 5000, "too large"),
        ("a: 1e999", "too large"),
        ("x" * 300_000, "too long"),
    ],
)
def test_traps_are_refused_with_a_sentence(text, message):
    with pytest.raises(UsageError, match=message) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_deep_nesting_does_not_exhaust_the_stack():
    start = time.perf_counter()
    for text in ("[" * 190_000, "{a: " * 40_000, "- " * 90_000):
        with pytest.raises(UsageError):
            parse(text)
    assert math.isfinite(time.perf_counter() - start)
