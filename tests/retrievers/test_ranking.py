"""rank_images against a plain loop over dictionaries."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from genret.retrievers.ranking import LeafImages, rank_images


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
