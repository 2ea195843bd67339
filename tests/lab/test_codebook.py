"""The tree of identifiers and the words that lead to it, against counting by hand; two searches side by side."""

from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from genret.api import Hit, SearchResult
from genret.catalog.codec import pack_texts
from genret.catalog.store import Catalog, NewImage
from genret.errors import GenretError, UsageError
from genret.lab.explain.codebook import Codebook
from genret.lab.explain.side_by_side import side_by_side
from genret.lab.explain.words import CaptionWords, words_of
from tests.search.fakes import image, in_memory

WORDS = ["dog", "snow", "car", "red", "sea"]
IMAGES = [
    ("i0", (0, 0), ["a dog in the snow", "the dog runs"], True),
    ("i1", (0, 1), ["a dog by the sea"], True),
    ("i2", (1, 0), ["a red car"], True),
    ("i3", (1, 2), ["red car in the snow"], False),
    ("i4", (2, 0), [], True),
    ("i5", (0,), ["a dog"], True),
]


@pytest.fixture
def catalog() -> Catalog:
    made = in_memory()
    made.add(
        image(name, [codes])._replace(captions=captions, searchable=shown, split="train")
        for name, codes, captions, shown in IMAGES
    )
    return made


def test_the_tree_counts_what_can_be_found(catalog: Catalog) -> None:
    book = Codebook.read(catalog)
    root = book.node(catalog)
    assert (root.symbols, root.num_images, root.num_children) == ([], 5, 3)
    assert [(child.symbols, child.num_images) for child in root.children] == [
        (["c0_0"], 3),
        (["c0_1"], 1),
        (["c0_2"], 1),
    ]
    assert [child.image_ids for child in root.children] == [["i0", "i1", "i5"], ["i2"], ["i4"]]
    assert root.children[0].words[0] == "dog" and root.children[1].words[:2] == ["car", "red"]
    assert root.children[2].words == []
    inner = book.node(catalog, ["c0_0"])
    assert [(child.symbols, child.image_ids) for child in inner.children] == [
        (["c0_0", "c1_0"], ["i0"]), (["c0_0", "c1_1"], ["i1"]),
    ]  # fmt: skip
    assert book.node(catalog, ["c0_1"]).num_children == 1, "what only unsearchable images have is not listed"
    leaf = book.node(catalog, ["c0_0", "c1_1"])
    assert leaf.image_ids == ["i1"] and leaf.children == [] and leaf.words[0] == "sea"
    assert json.loads(json.dumps(root.as_json()))["children"][0]["image_ids"] == ["i0", "i1", "i5"]
    assert len(book.node(catalog, images=2).image_ids) == 2


@pytest.mark.parametrize("symbols", [["c0_7"], ["c1_0"], ["c0_0", "c1_9"], ["x"], ["c0_0"] * 9, ["c0_" + "9" * 30]])
def test_prefixes_that_do_not_exist(catalog: Catalog, symbols: list[str]) -> None:
    with pytest.raises(UsageError, match=r"begins with|is no symbol of level"):
        Codebook.read(catalog).node(catalog, symbols)


def test_runs_without_codes_have_no_codebook() -> None:
    texts = in_memory()
    with pytest.raises(GenretError, match="images have no identifiers"):
        Codebook.read(texts)
    texts.add([NewImage("a", "a", "a", pack_texts(["red car"]), image("x", []).vector)])
    with pytest.raises(GenretError, match="identifiers are texts"):
        Codebook.read(texts)


@given(some.lists(some.tuples(some.integers(0, 4), some.sets(some.sampled_from(WORDS), min_size=1)), max_size=12))
def test_telling_words_by_the_definition(captions: list[tuple[int, set[str]]]) -> None:
    """Images 0 to 4 in groups 0, 0, 1, 1, none."""
    groups = np.array([0, 0, 1, 1, -1])
    found = CaptionWords.of((row, " ".join(sorted(words))) for row, words in captions)
    told = found.telling(groups, 2, 3)
    said = {row: set().union(*(words for other, words in captions if other == row)) for row, _ in captions}
    overall = Counter(word for words in said.values() for word in words)
    for group in (0, 1):
        inside = [words for row, words in said.items() if groups[row] == group]
        counts = Counter(word for words in inside for word in words)
        gain = {w: n * math.log(n * len(said) / (overall[w] * len(inside))) for w, n in counts.items()}
        best = sorted((g for g in gain.values() if g > 1e-9), reverse=True)[:3]
        assert [gain[word] for word in told[group]] == pytest.approx(best)


def test_words_are_whole_and_tell_something() -> None:
    assert words_of("The Dog's 3 naïve übergrüße, with an_underscore!") == {"dog", "naïve", "übergrüße", "underscore"}


def test_two_searches_side_by_side() -> None:
    def search(*names: str) -> object:
        return lambda query, k: SearchResult(
            query, [Hit(n + 1, name, name, -n) for n, name in enumerate(names)], None, 1
        )

    both = side_by_side("words", ("a", search("x", "y", "z")), ("b", search("z", "w")), 3)  # type: ignore[arg-type]
    assert (both.left.other_ranks, both.right.other_ranks, both.num_common) == ([None, None, 1], [3, None], 1)
    assert json.loads(json.dumps(both.as_json()))["right"]["hits"][0]["image_id"] == "z"
