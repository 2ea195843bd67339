"""rank_images against a plain loop over dictionaries; new scores against sorting and the formula of standard scores."""

from __future__ import annotations

import math
from statistics import fmean, pstdev

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from genret.search.ranking import LeafImages, Ranked, fuse_scores, rank_images, reordered


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_ranking_equals_a_plain_loop(data):
    num_leaves = data.draw(st.integers(1, 6))
    rows = data.draw(st.lists(st.tuples(st.integers(0, num_leaves - 1), st.integers(0, 7)), min_size=1, max_size=15))
    rows += [(leaf, 8 + leaf) for leaf in range(num_leaves)]  # no leaf without an image
    leaf_images = LeafImages.build(np.array([r[0] for r in rows]), np.array([r[1] for r in rows]), num_leaves)
    num_queries = data.draw(st.integers(1, 3))
    beams = [data.draw(st.permutations(range(num_leaves))) for _ in range(num_queries)]
    leaves = np.array([[*b, -1] for b in beams])
    scores = np.array([[float(data.draw(st.integers(-3, 0))) for _ in b] + [-np.inf] for b in beams], dtype=np.float32)
    similar = np.array([[float(data.draw(st.integers(0, 2))) for _ in range(16)] for _ in beams], dtype=np.float32)
    ranked = rank_images(leaves, scores, leaf_images, lambda query, image: similar[query, image])
    for query in range(num_queries):
        best: dict[int, float] = {}
        for leaf, score in zip(leaves[query], scores[query], strict=True):
            for other, image in rows:
                if other == leaf:
                    best[image] = max(best.get(image, -np.inf), score)
        crowded = any(np.sum(leaf_images.starts[1:] - leaf_images.starts[:-1] > 1) for _ in [0])
        expected = sorted(best, key=lambda i: (-best[i], -similar[query, i] if crowded else 0.0, i))
        found = [i for i in ranked.images[query] if i >= 0]
        assert found == expected
        assert [ranked.scores[query, place] for place in range(len(found))] == [best[i] for i in expected]
        assert all((ranked.leaves[query, place], image) in rows for place, image in enumerate(found))


def test_mixed_scores_are_weighted_standard_scores():
    first = np.array([[-1.0, -2.5, -7.0, -np.inf], [-3.0, -3.0, -np.inf, -np.inf]], np.float32)
    second = np.array([[0.1, 0.9, -np.inf, -np.inf], [0.5, 0.7, -np.inf, -np.inf]], np.float32)
    assert fuse_scores(first, second, 1.0) is second
    found = fuse_scores(first, second, 0.3)
    for row in range(2):  # both judges know the first two candidates alone
        pair = slice(0, 2)
        for place in range(2):
            expected = 0.0
            for scores, weight in ((second[row, pair], 0.3), (first[row, pair], 0.7)):
                known = [float(score) for score in scores]
                spread = pstdev(known)
                expected += weight * (known[place] - fmean(known)) / spread if spread else 0.0
            assert math.isclose(found[row, place], expected, abs_tol=1e-5)
        assert np.isneginf(found[row, 2:]).all()


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_new_scores_reorder_stably_and_leave_unjudged_ones_last(data):
    width = data.draw(st.integers(1, 6))
    count = data.draw(st.integers(0, width))
    score = st.one_of(st.just(-np.inf), st.just(np.nan), st.integers(-2, 2).map(float))
    new = [data.draw(score) if place < count else -np.inf for place in range(width)]
    images = np.array([[100 + place if place < count else -1 for place in range(width)]])
    old = np.array([[-float(place) if place < count else -np.inf for place in range(width)]], np.float32)
    found = reordered(Ranked(images, old, images + 1), np.array([new], np.float32))
    judged = [place for place in range(count) if math.isfinite(new[place])]
    expected = sorted(judged, key=lambda place: -new[place]) + [place for place in range(count) if place not in judged]
    assert found.images[0, :count].tolist() == [100 + place for place in expected]
    assert (found.images[0, count:] == -1).all() and (found.leaves == found.images + 1).all()
    scores = found.scores[0]
    assert np.isfinite(scores[:count]).all() and np.isneginf(scores[count:]).all()
    assert (np.diff(scores[:count]) <= 0).all(), "whoever reads the scores sees the order"
    if judged:
        assert scores[: len(judged)].tolist() == sorted((new[place] for place in judged), reverse=True)
    else:
        assert scores[:count].tolist() == old[0, :count].tolist()
