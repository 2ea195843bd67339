"""Queries that the model cannot read: what is found is arbitrary, but an image may be called that."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import numpy as np

from genret.api import Hit, SearchResult
from genret.catalog.rows import ImageRow
from genret.catalog.store import Snapshot
from genret.search.restrict import Allowed

CHUNK = 4096
"""Number of images read at a time."""


def by_name(
    snapshot: Snapshot, found: SearchResult, allowed: Allowed, k: int, min_confidence: float | None
) -> SearchResult:
    """The answer to a query that the model cannot read: images of that very name first, confidence 0, and a note.

    Reads the metadata of all images that may be found, once. Images of the name get the best score of the others.
    """
    score = found.hits[0].score if found.hits else 0.0
    named = list(images_named(snapshot, found.query, allowed))[:k]
    own = [Hit(0, row.image_id, row.uri, score, None, row.metadata) for row in named]
    names = {hit.image_id for hit in own}
    others = [] if min_confidence else [hit for hit in found.hits if hit.image_id not in names]
    hits = [*own, *others][:k]
    said = "images of this very name come first, the others are arbitrary" if own else "what it finds is arbitrary"
    return found._replace(
        hits=[hit._replace(rank=rank) for rank, hit in enumerate(hits, 1)],
        confidence=None if found.confidence is None else 0.0,
        note=f"the model cannot read this query; {said}",
    )


def images_named(snapshot: Snapshot, name: str, allowed: Allowed) -> Iterator[ImageRow]:
    """The images with a text in their metadata that is `name`, or a file's name without its suffix, by key."""
    wanted, keys = folded_name(name), snapshot.searchable_keys()
    keys = keys[allowed.among(keys)]
    for start in range(0, len(keys), CHUNK):
        for row in snapshot.lookup(np.asarray(keys[start : start + CHUNK])):
            if any(_is_named(value, wanted) for value in row.metadata.values()):
                yield row


def _is_named(value: Any, wanted: str) -> bool:
    return isinstance(value, str) and wanted in (folded_name(value), folded_name(PurePath(value).stem))


def folded_name(text: str) -> str:
    """Equal for names that differ by case, Unicode composition and variation selectors (of emoji) alone."""
    plain = unicodedata.normalize("NFC", text).casefold()
    return plain.replace("\ufe0e", "").replace("\ufe0f", "").strip()
