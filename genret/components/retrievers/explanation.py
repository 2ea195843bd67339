"""The records of an explained search."""

from __future__ import annotations

from typing import Any, NamedTuple

from genret.api import Hit
from genret.api.described import described


@described
class ExplainedPrefix(NamedTuple):
    """The first symbols of some identifiers, at one level of a beam search."""

    symbols: list[str]
    """Of identifiers that are texts: the text that all below begin with"""
    rank: int
    """From 1, by score, among the candidates of its level"""
    is_kept: bool
    """Whether the search went on from here"""
    is_right: bool
    """Whether it leads to the image asked for"""
    score: float
    """What the search sorts by: `log_prob` plus `guidance`"""
    log_prob: float
    """The language model's log-probability of these symbols; nearer to 0 is better"""
    guidance: float
    """Minus half the squared distances to the mean of the identifiers below, by their weights; 0 without guidance"""
    num_images: int
    """Images below"""
    image_ids: list[str]
    """A few of them"""


@described
class ExplainedLevel(NamedTuple):
    """One step of a beam search."""

    level: int
    """From 1"""
    num_candidates: int
    """Prefixes that could have been kept"""
    num_kept: int
    """Prefixes that were: at most `num_beams`"""
    cutoff: float
    """The score of the last one kept"""
    prefixes: list[ExplainedPrefix]
    """Best first: those kept, the best of those dropped, and the one that leads to the image asked for"""


@described
class Explanation(NamedTuple):
    """A search, level by level."""

    query: str
    """What was asked"""
    num_beams: int
    """How wide the search was"""
    guidance: float
    """The weights of guidance and self-guidance together; 0: log-probabilities alone"""
    levels: list[ExplainedLevel]
    """Empty if there is nothing to search"""
    hits: list[Hit]
    """As `search` gives them"""
    image_id: str | None = None
    """The image asked for"""
    rank: int | None = None
    """Its rank among `hits`, from 1; None: not among them"""
    right_score: float | None = None
    """The score of its identifier, reached or not: if better than the last hit's, more beams would find it; None if
    scores are normalized over the trie"""
    lost_at: str | None = None
    """Why the image asked for is not among `hits`: `level 1`, `level 2` … (its prefix was dropped there), `rank`
    (found, but others score better), `collision` (its identifier is among the k best, shared with other images),
    `rerank`, or `no identifier`; None: it is among them, or none was asked for"""

    def as_json(self) -> dict[str, Any]:
        """Plain mappings and lists, under the names of the fields."""
        levels = [
            level._asdict() | {"prefixes": [prefix._asdict() for prefix in level.prefixes]} for level in self.levels
        ]
        return self._asdict() | {"levels": levels, "hits": [hit._asdict() for hit in self.hits]}
