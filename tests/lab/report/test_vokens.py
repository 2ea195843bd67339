"""Figure 5 against counting every pair."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as some

from genret.catalog.store import ImageRow
from genret.lab.report import vokens

CODES = some.lists(some.lists(some.integers(0, 2), min_size=1, max_size=4), min_size=2, max_size=12)


def images_of(names: list[list[int]], features: torch.Tensor | None = None, copies: bool = False) -> vokens.NamedImages:
    depth = max(map(len, names))
    codes = np.array([name + [-1] * (depth - len(name)) for name in names])
    rows = [ImageRow(n, f"i{n}", "", "same" if copies else str(n), "test", True, {}) for n in range(len(names))]
    if features is None:
        features = torch.nn.functional.normalize(torch.randn(len(names), 5, generator=torch.Generator().manual_seed(0)))
    return vokens.NamedImages(rows, codes, features, {})


def shared(first: list[int], second: list[int]) -> int:
    """How many symbols two identifiers have in common from the left."""
    return next(
        (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


@given(CODES)
def test_every_length_that_occurs_is_found(names: list[list[int]]) -> None:
    found = vokens.shared_prefixes(images_of(names))
    assert {one.length for one in found} == {shared(a, b) for a, b in combinations(names, 2)}
    assert sum(one.num_pairs for one in found) == len(names) - 1
    for one in found:
        assert one.first != one.second and shared(names[one.first], names[one.second]) == one.length
    ordered = sorted(names)
    counts = {one.length: one.num_pairs for one in found}
    assert counts == {n: [shared(a, b) for a, b in pairwise(ordered)].count(n) for n in counts}


def test_the_pair_of_median_similarity_is_shown() -> None:
    angles = torch.tensor([0.0, 0.1, 0.4, 1.4])
    images = images_of([[0, 0], [0, 1], [0, 2], [0, 3]], torch.stack([angles.cos(), angles.sin()], 1))
    (one,) = vokens.shared_prefixes(images)
    assert (one.length, one.num_pairs, {one.first, one.second}) == (1, 3, {1, 2})
    assert one.pair_similarity == np.cos(0.3).astype(np.float32) or abs(one.pair_similarity - np.cos(0.3)) < 1e-6
    assert abs(one.similarity - np.cos([0.1, 0.3, 1.0]).mean()) < 1e-6


def test_copies_of_one_picture_are_no_pairs() -> None:
    assert vokens.shared_prefixes(images_of([[0], [0], [1]], copies=True)) == []
    assert vokens.shared_prefixes(images_of([[0]])) == []


def test_vokens_show_what_is_near_their_centre() -> None:
    base = torch.eye(4)
    names = [[0], [0], [0], [1], [1], [2]]
    features = torch.nn.functional.normalize(
        torch.stack([base[0], base[0] + 0.1, base[0] - 0.1, base[1], base[1] + 0.1, base[2]])
    )
    texts = torch.nn.functional.normalize(torch.stack([base[2], base[1], base[0]]))
    views = vokens.voken_views(
        images_of(names, features), count=9, nearest=3, captions=["c", "b", "a"], caption_features=texts
    )
    assert [(one.code, one.num_images) for one in views] == [(0, 3), (1, 2)], "a voken of one image says nothing"
    assert sorted(views[0].images) == [0, 1, 2] and all(views[0].bears) and views[0].captions[0] == "a"
    assert (
        sorted(views[1].images[:2]) == [3, 4] and views[1].bears == [True, True, False] and views[1].captions[0] == "b"
    )
    assert vokens.voken_views(images_of(names, features), count=1)[0].captions == []
    assert vokens.voken_views(images_of([[0], [1]])) == []


def test_captions_that_are_most_alike() -> None:
    first, second = (
        ["A sunny day.", "Two dogs run with a Ball!"],
        ["a ball in the grass", "dogs, running after the ball"],
    )
    captions, common = vokens.nearest_captions(first, second)
    assert captions == (first[1], second[1]) and common == {"dogs", "ball"}
    assert vokens.nearest_captions([], ["x"]) == (("", "x"), set())
    assert vokens.nearest_captions(["with that"], ["with that"])[1] == set(), "words that mean nothing alone"
