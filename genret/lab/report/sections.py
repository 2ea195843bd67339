"""The content of a report, run by run: plain data and charts for the template; `missing` explains absent sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from markupsafe import Markup

from genret.evaluate.ledger import folded
from genret.evaluate.metrics import CUTOFFS
from genret.lab.report import figures, tables, trust, vokens, words
from genret.lab.report.missing import missing_of
from genret.lab.report.options import Changed, Line, changed_options, chosen, marked_lines
from genret.lab.report.queries import Sample, TracedQuery
from genret.lab.report.stored import StoredRun
from genret.lab.report.thumbs import ThumbnailUris
from genret.lab.report.vokens import NamedImages


class Picture(NamedTuple):
    uri: str | None
    """None: no thumbnail"""
    image_id: str
    captions: list[str]
    identifier: list[str] | None


class ShownHit(NamedTuple):
    rank: int
    picture: Picture
    score: float
    is_right: bool


class Query(NamedTuple):
    traced: TracedQuery
    right: Picture
    hits: list[ShownHit]
    where: str
    left_beam: str | None
    places: list[int | None]
    """Ranks of the positive prefix in the beam, by level, until it is dropped"""


@dataclass(frozen=True, kw_only=True)
class Pair:
    length: int
    num_levels: int
    num_pairs: int
    similarity: float
    pair_similarity: float
    first: Picture
    second: Picture
    captions: tuple[str, str]
    """For each image, the caption most similar to the other's"""
    common: set[str]
    """Words in both captions"""


class Voken(NamedTuple):
    name: str
    num_images: int
    pictures: list[tuple[Picture, bool]]
    captions: list[str]
    words: list[str]
    """Of captions, those that set its images apart"""


@dataclass(frozen=True, kw_only=True)
class RunSections:
    stored: StoredRun
    summary: list[str]
    facts: list[tuple[str, str]]
    figures: figures.Figures
    curves: list[Markup]
    ledger: list[tables.LedgerLine]
    levels: list[tables.LevelLine]
    queries: list[Query]
    pairs: list[Pair]
    vokens: list[Voken]
    learning: list[tuple[str, list[Markup]]]
    chosen: dict[str, str]
    changed: list[Changed]
    recipe: list[Line]
    leaks: list[str]
    doubt: trust.Doubt | None
    extras: list[tuple[str, list[tuple[str, str]]]]
    machine: list[tuple[str, str]]
    missing: dict[str, str]
    """By section: why it is missing"""
    remarks: list[str]

    @property
    def name(self) -> str:
        return self.stored.name

    def as_json(self) -> dict[str, Any]:
        return {
            "run": str(self.stored.run),
            "name": self.name,
            "summary": " ".join(self.summary),
            "evaluation": self.stored.evaluation,
            "by_num_beams": {str(k): {str(b): v for b, v in figures.curve(self.stored, k)} for k in CUTOFFS},
            "queries": [query.traced.as_json() for query in self.queries],
            "pairs": [
                {
                    "shared": pair.length,
                    "num_pairs": pair.num_pairs,
                    "similarity": pair.similarity,
                    "images": [pair.first.image_id, pair.second.image_id],
                    "identifiers": [pair.first.identifier, pair.second.identifier],
                }
                for pair in self.pairs
            ],
            "missing": self.missing,
            "remarks": self.remarks,
        }


class Together(NamedTuple):
    """Several runs side by side."""

    curves: list[Markup]
    stages: list[tuple[str, list[float | None]]]
    """The ledgers' points by row, one column per run"""


def of_run(
    stored: StoredRun,
    images: NamedImages | None,
    sample: Sample | None,
    pictures: ThumbnailUris,
    remarks: list[str],
    voken_words: Mapping[str, list[str]] | None = None,
) -> RunSections:
    measured = figures.figures_of(stored)
    show = _Shower(pictures, images)
    ledger = _ledger(stored)
    found = RunSections(
        stored=stored,
        summary=words.summary_of(stored, measured),
        facts=words.facts_of(stored),
        figures=measured,
        curves=tables.curves_of([stored]),
        ledger=tables.ledger_lines(ledger, stored.recipe.rerank is not None),
        levels=tables.level_lines(stored, images),
        queries=[] if sample is None else [show.query(traced) for traced in sample.queries],
        pairs=[] if images is None else [show.pair(images, one) for one in vokens.shared_prefixes(images)],
        vokens=[] if images is None else show.vokens(images, sample, voken_words or {}),
        learning=tables.learning_curves(stored.metrics),
        chosen=chosen(stored.recipe),
        changed=changed_options(stored.recipe),
        recipe=marked_lines(stored.recipe),
        leaks=trust.leaks_of(stored),
        doubt=trust.doubt_of(stored.evaluation or {}),
        extras=tables.extra_tables(stored.evaluation or {}),
        machine=words.machine_of(stored),
        missing={},
        remarks=remarks,
    )
    return replace(found, missing=missing_of(found, images is not None))


def together(runs: Sequence[RunSections]) -> Together | None:
    """None for a single run."""
    if len(runs) < 2:
        return None
    ledgers = [{row["stage"]: row.get("lost", row["recall"]) for row in _ledger(one.stored)} for one in runs]
    stages = sorted({stage for one in ledgers for stage in one}, key=_ledger_order)
    return Together(
        tables.curves_of([one.stored for one in runs]),
        [(stage, [one.get(stage) for one in ledgers]) for stage in stages],
    )


def _ledger(stored: StoredRun) -> list[dict[str, Any]]:
    return folded((stored.evaluation or {}).get("ledger") or [])


def _ledger_order(stage: str) -> tuple[float, str]:
    order = ("dense", "quantization", "level", "beam", "collision", "recovered", "reached", "rerank", "final")
    word, _, levels = stage.partition(" ")
    number = levels.partition(" ")[0]  # "level 9 to 32" takes the place of level 9
    place = order.index(word) if word in order else len(order)
    return place + (int(number) / 1000 if number.isdigit() else 0), stage


# ------------------------------------------------------------------------------------------------ pictures
class _Shower:
    """Images with their data."""

    def __init__(self, pictures: ThumbnailUris, images: NamedImages | None):
        self._pictures = pictures
        self._captions = {} if images is None else images.captions

    def picture(self, row: Any, identifier: list[str] | None = None) -> Picture:
        return Picture(self._pictures.uri(row.sha256), row.image_id, self._captions.get(row.key, []), identifier)

    def query(self, traced: TracedQuery) -> Query:
        hits = [
            ShownHit(hit.rank, self.picture(hit.image, hit.identifier), hit.score, hit.is_right) for hit in traced.hits
        ]
        right = self.picture(traced.right, traced.identifier)
        ranks = traced.prefix_ranks
        places = ranks[: ranks.index(None) + 1] if None in ranks else ranks
        return Query(traced, right, hits, words.where_lost(traced), words.left_beam(traced), places)

    def pair(self, images: NamedImages, one: vokens.SharedPrefix) -> Pair:
        first, second = (self.picture(images.rows[row], images.names(row)) for row in (one.first, one.second))
        captions, common = vokens.nearest_captions(first.captions, second.captions)
        return Pair(
            length=one.length,
            num_levels=images.codes.shape[1],
            num_pairs=one.num_pairs,
            similarity=one.similarity,
            pair_similarity=one.pair_similarity,
            first=first,
            second=second,
            captions=captions,
            common=common,
        )

    def vokens(self, images: NamedImages, sample: Sample | None, telling: Mapping[str, list[str]]) -> list[Voken]:
        captions, features = ([], None) if sample is None else (sample.captions, sample.caption_features)
        return [
            Voken(
                f"c{one.level}_{one.code}",
                one.num_images,
                [
                    (self.picture(images.rows[r], images.names(r)), b)
                    for r, b in zip(one.images, one.bears, strict=True)
                ],
                one.captions,
                telling.get(f"c{one.level}_{one.code}", []),
            )
            for one in vokens.voken_views(images, captions=captions, caption_features=features)
        ]
