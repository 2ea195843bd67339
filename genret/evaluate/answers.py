"""All measures of a search, with two sets of positives: a query's own image, or every image with the same caption.

In the literature one image is relevant to each query. If two images of a split have the same caption, the second
set is fairer: recall then counts any of them (as in CLIP's evaluation), true recall their share.

    Q queries   P pairs of a query and a relevant image
"""

from __future__ import annotations

from typing import Any

import numpy as np

from genret.evaluate.metrics import Relevant, Scores, pair_ranks, scores_of
from genret.evaluate.queries import QuerySet, answers_of
from genret.kit.arrays import Ints
from genret.search.dense import dense_ranks
from genret.search.ranking import Ranked

Measures = dict[str, Any]


def own_image(asked: QuerySet, ranked: Ranked | None, two_tower: Ints, num_beams: int | None) -> Measures:
    """`searched` and `two_tower`, each with all `Scores`. ranked: the results of the search; None: the dense search
    itself, whose ranks are two_tower (Q,)."""
    relevant = Relevant.of(asked.relevant)
    return _both(ranked, relevant, scores_of(two_tower, relevant), num_beams)


def same_caption(asked: QuerySet, ranked: Ranked | None, num_beams: int | None) -> Measures | None:
    """The same with several positives per caption, with the number of such `queries`; None if there are none."""
    relevant = answers_of(asked)
    shared = int((relevant.counts > 1).sum())
    if not shared:
        return None
    dense = scores_of(dense_ranks_of_pairs(asked, relevant), relevant)
    return {"queries": shared} | _both(ranked, relevant, dense, num_beams)


def dense_ranks_of_pairs(asked: QuerySet, relevant: Relevant) -> Ints:
    """(P,) the rank of each relevant image in the exact dense search."""
    queries = asked.query_features[np.asarray(relevant.queries)]
    return dense_ranks(queries, asked.features, relevant.rows)


def _both(ranked: Ranked | None, relevant: Relevant, dense: Scores, num_beams: int | None) -> Measures:
    own = None if ranked is None else scores_of(pair_ranks(ranked.images, relevant), relevant, num_beams=num_beams)
    return {"searched": (own or dense).as_json(), "two_tower": dense.as_json()}
