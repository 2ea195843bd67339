"""One query in two searches: two runs, or a run and the two-tower search of the same vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from genret.api import Hit, SearchResult
from genret.api.described import described
from genret.components.retrievers.two_tower import TwoTowerRetriever
from genret.run import Run
from genret.search.resources import Resources

Search = Callable[[str, int], SearchResult]


@described
class Side(NamedTuple):
    """What one of two searches found."""

    name: str
    """Of the run, or `two-tower`"""
    hits: list[Hit]
    """Best first"""
    elapsed_ms: float
    """Without loading"""
    other_ranks: list[int | None]
    """For each hit its rank on the other side; None: not among the k there"""


@described
class SideBySide(NamedTuple):
    """One query in two searches."""

    query: str
    """What was asked"""
    left: Side
    """The run"""
    right: Side
    """What it is compared with"""
    num_common: int
    """Images that both found"""

    def as_json(self) -> dict[str, Any]:
        sides = {
            name: side._asdict() | {"hits": [hit._asdict() for hit in side.hits]}
            for name, side in (("left", self.left), ("right", self.right))
        }
        return self._asdict() | sides


def two_tower_of(run: Run) -> TwoTowerRetriever:
    """The dense search over the run's own catalog, with its encoder."""
    own = run.retriever
    made = TwoTowerRetriever(TwoTowerRetriever.Config())
    parts = {"identifier": None, "backbone": None, "reranker": None}
    made.connect(
        Resources(
            catalog=own.catalog,
            thumbnails=own.thumbnails,
            encoder=own.encoder,
            search=own.options,
            train=run.recipe.train,
            device=own.device,
            **parts,
        )
    )
    return made


def side_by_side(query: str, left: tuple[str, Search], right: tuple[str, Search], k: int = 10) -> SideBySide:
    """Each search by its name, and as a function of the query and k."""
    found = [search(query, k) for _, search in (left, right)]
    ranks = [{hit.image_id: hit.rank for hit in result.hits} for result in found]
    first, second = (
        Side(name, result.hits, result.elapsed_ms, [others.get(hit.image_id) for hit in result.hits])
        for (name, _), result, others in zip((left, right), found, ranks[::-1], strict=True)
    )
    return SideBySide(query, first, second, len(ranks[0].keys() & ranks[1].keys()))
