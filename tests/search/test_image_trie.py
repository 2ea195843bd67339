"""A trie that images came to and went from against a plain loop over what is left."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genret.components.retrievers.restricted import leaves_for, num_images
from genret.search.image_trie import ImageTrie
from genret.search.ranking import LeafImages
from genret.search.restrict import Allowed

END = 9
words = st.lists(st.integers(0, 3), max_size=3).map(lambda word: (*word, END))
rows = st.lists(st.tuples(words, st.integers(0, 12)), unique=True, max_size=20)


def built(named: list[Any]) -> ImageTrie:
    depth = max(len(word) for word, _ in named)
    tokens = torch.tensor([[*word, *[-1] * (depth - len(word))] for word, _ in named], dtype=torch.int32)
    return ImageTrie.build(tokens, np.array([image for _, image in named], dtype=np.int64))


def table(named: list[Any]) -> torch.Tensor:
    depth = max(len(word) for word, _ in named)
    return torch.tensor([[*word, *[-1] * (depth - len(word))] for word, _ in named], dtype=torch.int32)


def content(index: ImageTrie) -> list[tuple[tuple[int, ...], list[int]]]:
    """Every identifier in the order of the leaves, with its images."""
    tokens = index.trie.tokens_of(torch.arange(index.trie.num_leaves)).tolist()
    images = [index.leaf_images.images_of(np.array([leaf])).tolist() for leaf in range(index.trie.num_leaves)]
    return [(tuple(token for token in row if token >= 0), found) for row, found in zip(tokens, images, strict=True)]


def by_hand(named: list[Any]) -> list[tuple[tuple[int, ...], list[int]]]:
    return [(word, sorted(image for other, image in named if other == word)) for word in sorted({w for w, _ in named})]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_what_comes_and_goes_leaves_what_building_it_anew_would(data: Any) -> None:
    named = data.draw(rows.filter(bool))
    index = built(named)
    assert content(index) == by_hand(named)
    for _ in range(data.draw(st.integers(1, 4))):
        removed = np.array(sorted(data.draw(st.sets(st.integers(0, 14)))), dtype=np.int64)
        before = content(index)
        smaller = index.without(removed)
        assert content(index) == before, "whoever searches keeps what it has"
        named = [(word, image) for word, image in named if image not in removed]
        more = [row for row in data.draw(rows) if row not in named]
        if not named:
            assert not smaller.trie.num_leaves and not len(smaller.leaf_images.images)
            return
        assert content(smaller) == by_hand(named)
        index = smaller.extended(table(more), np.array([image for _, image in more])) if more else smaller
        named += more
        assert content(index) == by_hand(named)
        assert index.leaf_images.starts.dtype == index.leaf_images.images.dtype == np.int32


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_leaves_that_may_be_reached(data: Any) -> None:
    named = data.draw(rows.filter(bool))
    index = built(named)
    keys = st.sets(st.integers(0, 12)).map(lambda some: np.array(sorted(some), dtype=np.int64))
    only, unlike, length = data.draw(st.one_of(st.none(), keys)), data.draw(keys), data.draw(st.integers(1, 5))
    without = np.union1d(data.draw(keys), unlike)
    allowed = Allowed(only, without, unlike, length)
    banned = {word[:length] for word, image in named if image in unlike}
    expected = [
        word[:length] not in banned
        and any(image not in without and (only is None or image in only) for image in images)
        for word, images in by_hand(named)
    ]
    leaves = leaves_for(index, allowed)
    assert leaves.tolist() == expected
    reached = {
        image
        for (_, images), there in zip(by_hand(named), expected, strict=True)
        for image in images
        if there and image not in without and (only is None or image in only)
    }
    assert num_images(index, allowed, leaves) == len(reached)


def test_keys_beyond_32_bits_stay_what_they_are() -> None:
    for highest in (2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40):
        leaf_images = LeafImages.build(np.array([1, 0, 1]), np.array([highest, 3, highest - 1]), 2)
        assert leaf_images.images.tolist() == [3, highest - 1, highest]
        joined = leaf_images.joined(np.array([0, 2]), np.array([2, 1]), np.array([5, highest]), 3)
        assert joined.images.tolist() == [3, highest, 5, highest - 1, highest]
        assert joined.starts.tolist() == [0, 1, 2, 5]


def test_at_most_24_bytes_an_identifier() -> None:
    draw = np.random.default_rng(0)
    tokens = torch.from_numpy(draw.integers(0, 1024, (100_000, 4)))
    index = ImageTrie.build(tokens, np.arange(100_000)).rowless()
    assert index.nbytes <= 24 * 100_000
    more = index.extended(torch.from_numpy(draw.integers(0, 1024, (1000, 4))), np.arange(1000) + 100_000)
    assert more.without(np.arange(1000)).nbytes <= 24 * 100_000
