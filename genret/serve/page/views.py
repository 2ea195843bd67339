"""What the page shows, from what the API's functions give: cards of pictures, explanations, trees, two searches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from genret.components.retrievers.explanation import ExplainedLevel, ExplainedPrefix, Explanation
from genret.folders import finished_run, is_finished
from genret.lab.explain.codebook import Codebook, Node
from genret.lab.explain.side_by_side import Side, two_tower_of
from genret.run import Run
from genret.serve.listing import Listing
from genret.serve.replies import thumb
from genret.serve.schemas import Thumb

FIRST, MORE, DROPPED = 5, 10, 2
"""Prefixes shown of each level: kept ones, further kept ones of a level that is asked for, dropped ones."""
PICTURES = 3
"""Pictures shown of each prefix."""
BRANCHES = 36
"""Symbols on one page of the codebook."""
TWO_TOWER = "two-tower"


class Bar(NamedTuple):
    """A prefix's cost in two parts, in percent of the worst one shown."""

    language_model: float
    guidance: float


class PrefixView(NamedTuple):
    prefix: ExplainedPrefix
    images: list[Thumb]
    bar: Bar


class LevelView(NamedTuple):
    level: ExplainedLevel
    kept: list[PrefixView]
    dropped: list[PrefixView]
    num_more: int
    """Kept prefixes that are not shown"""


def thumbs(listing: Listing, image_ids: Iterable[str]) -> dict[str, Thumb]:
    """By image id; without those that have been removed meanwhile."""
    rows = listing.named(list(dict.fromkeys(image_ids)))
    return {row.image_id: thumb(listing, row) for row in rows if row is not None}


def level_views(listing: Listing, told: Explanation, opened: int | None = None) -> list[LevelView]:
    """The first prefixes of each level, kept and dropped, and the right one; more of level `opened`."""
    few = FIRST if opened is None else FIRST // 2
    chosen = [shown(level, FIRST + MORE if level.level == opened else few) for level in told.levels]
    known = thumbs(listing, (name for some in chosen for one in some for name in one.image_ids[:PICTURES]))
    views = []
    for level, some in zip(told.levels, chosen, strict=True):
        worst = max((-one.score for one in some), default=1) or 1
        made = [
            PrefixView(
                one,
                [known[name] for name in one.image_ids[:PICTURES] if name in known],
                Bar(round(100 * max(0.0, -one.log_prob) / worst, 1), round(100 * max(0.0, -one.guidance) / worst, 1)),
            )
            for one in some
        ]
        kept = [one for one in made if one.prefix.is_kept]
        dropped = [one for one in made if not one.prefix.is_kept]
        views.append(LevelView(level, kept, dropped, level.num_kept - len(kept)))
    return views


def shown(level: ExplainedLevel, most: int) -> list[ExplainedPrefix]:
    """The first kept prefixes, the first dropped ones, and those that lead to the right image."""
    kept = [one for one in level.prefixes if one.is_kept]
    dropped = [one for one in level.prefixes if not one.is_kept]
    parts = (kept, most), (dropped, DROPPED)
    return [one for some, count in parts for n, one in enumerate(some) if n < count or one.is_right]


class Codebooks:
    """The tree of the present version of the catalog, read anew when that changes."""

    def __init__(self) -> None:
        self._known: Codebook | None = None

    def node(self, listing: Listing, symbols: list[str]) -> tuple[Node, dict[str, Thumb]]:
        catalog = listing.catalog
        book = self._known
        if book is None or book.state != catalog.state:
            book = self._known = Codebook.read(catalog)
        found = book.node(catalog, symbols, images=6)
        names = [*found.image_ids, *(name for child in found.children for name in child.image_ids)]
        return found, thumbs(listing, names)


class Rivals:
    """What the run is compared with: its two-tower search, or another finished run. One is kept open."""

    def __init__(self, run: Run):
        self.run = run
        self._open: tuple[str, Any] | None = None

    def names(self) -> list[str]:
        """Of all that the run can be compared with."""
        folder = self.run.settings.home / "runs"
        others = sorted(one for one in folder.iterdir() if is_finished(one)) if folder.is_dir() else []
        return [TWO_TOWER, *(one.name for one in others if one.resolve() != self.run.folder.resolve())]

    def search(self, name: str) -> Any:
        """A search by query and k; `name` is one of `names`. For the model's thread."""
        if self._open is None or self._open[0] != name:
            if self._open is not None and isinstance(self._open[1], Run):
                self._open[1].close()
            self._open = None
            if name == TWO_TOWER:
                self._open = name, two_tower_of(self.run)
            else:
                folder = finished_run(self.run.settings.home / "runs" / name, self.run.settings)
                self._open = name, Run(folder, self.run.registries, self.run.settings)
        searcher = self._open[1]
        return lambda query, k: searcher.search([query], k)[0]


class SideView(NamedTuple):
    side: Side
    rows: list[tuple[Any, Thumb | None, int | None]]
    """Hit, its picture if this run's catalog has it, its rank on the other side"""


def side_view(listing: Listing, side: Side) -> SideView:
    known = thumbs(listing, (hit.image_id for hit in side.hits))
    pairs = zip(side.hits, side.other_ranks, strict=True)
    return SideView(side, [(hit, known.get(hit.image_id), rank) for hit, rank in pairs])
