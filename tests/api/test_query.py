"""A query, and how people type one."""

from __future__ import annotations

import pytest

from genret import Query, UsageError


@pytest.mark.parametrize(
    ("typed", "text", "without"),
    [
        ("a dog", "a dog", ()),
        ("a dog -beach", "a dog", ("beach",)),
        ('a dog -"palm tree"  -sea', "a dog", ("palm tree", "sea")),
        ("-beach", "-beach", ()),  # the first word is never negative
        ("t-shirt at -5 degrees - red", "t-shirt at -5 degrees - red", ()),
        (r"a dog \-beach", "a dog -beach", ()),
        (r"a dog \-beach -sea", "a dog -beach", ("sea",)),
        ("собака -море", "собака", ("море",)),
        ("犬 -海辺", "犬", ("海辺",)),
        ("two  spaces", "two  spaces", ()),
    ],
)
def test_negative_words_as_they_are_typed(typed: str, text: str, without: tuple[str, ...]) -> None:
    assert Query.parsed(typed) == Query(text=text, without=without)


def test_a_query_says_what_to_find() -> None:
    for empty in ({}, {"text": " "}, {"without": ("beach",)}, {"unlike": ("a.jpg",)}):
        with pytest.raises(UsageError, match=r"the query is empty; (it says only what not to find; )?say what"):
            Query(**empty)
    assert Query(like="a.jpg").like == ("a.jpg",), "one alone needs no list"
    assert not Query(text="a dog").has_picture and Query(image=b"x").has_picture and Query(like=("a",)).has_picture
    assert [str(one) for one in (Query(text="a dog"), Query(image="x/a.jpg"), Query(image=b"x"), Query(like="7"))] == [
        "a dog", "like a.jpg", "like a picture", "like 7",
    ]  # fmt: skip
