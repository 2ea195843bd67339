"""The ranks of several runs, query by query."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genret.evaluate.ranks import QueryRanks
from genret.kit.arrays import Ints


def paired(found: Sequence[QueryRanks]) -> list[Ints] | None:
    """Ranks in the same order of queries, (Q,) each; None if the queries or the searched images differ."""
    orders = [np.argsort(one.queries, kind="stable") for one in found]
    first = found[0].queries[orders[0]]
    same = all(
        one.images == found[0].images and np.array_equal(one.queries[order], first)
        for one, order in zip(found, orders, strict=True)
    )
    return [one.ranks[order] for one, order in zip(found, orders, strict=True)] if same else None
