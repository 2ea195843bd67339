"""Copies among a catalog's pictures: files of equal bytes, and the same picture at another size or quality.

N pictures of different content   D width of the shared space
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np
from PIL import Image

from genret.api import Progress
from genret.catalog.store import ImageRow
from genret.errors import BadImage
from genret.kit.arrays import Floats
from genret.run import Run
from genret.search.dense import dense_search
from genret.search.thumbnails import Thumbnails

NEIGHBOURS = 6
"""How many of the most similar vectors of each picture are looked at, its own among them."""
COSINE = 0.8
"""Of the stored vectors: below it, the thumbnails are not compared."""
NEAR = 0.97
"""Correlation of two 32 x 32 grey thumbnails above which they are the same picture."""
SIDE = 32


class Near(NamedTuple):
    """Two pictures of different bytes that look the same."""

    first: ImageRow
    second: ImageRow
    similarity: float
    """Correlation of their thumbnails, at most 1"""


class Copies(NamedTuple):
    exact: list[list[ImageRow]]
    """Pictures of equal bytes, two or more each, in the order of the catalog"""
    near: list[Near]
    """The most similar first; of equal files, the first stands for all"""


def find_copies(run: Run, progress: Progress, near: float = NEAR) -> Copies:
    """Among all searchable pictures. Candidates are the nearest by vectors; their thumbnails decide."""
    catalog, thumbnails = run.catalog, Thumbnails(run.folder / "thumbnails")
    keys = catalog.searchable_keys()
    by_content: dict[str, list[ImageRow]] = defaultdict(list)
    for row in catalog.lookup(keys):
        by_content[row.sha256].append(row)
    exact = [rows for rows in by_content.values() if len(rows) > 1]
    first = [rows[0] for rows in by_content.values()]
    if len(first) < 2:
        return Copies(exact, [])
    vectors = catalog.features_of(np.array([row.key for row in first]))
    hits = dense_search(vectors, vectors, min(NEIGHBOURS, len(first)))
    pairs = sorted(
        {
            (min(place, row), max(place, row))
            for place, (rows, scores) in enumerate(zip(hits.rows.tolist(), hits.scores.tolist(), strict=True))
            for row, score in zip(rows, scores, strict=True)
            if row not in (place, -1) and score >= COSINE
        }
    )
    small: dict[int, Floats | None] = {}
    found: list[Near] = []
    with progress("comparing pictures", len(pairs)) as bar:
        for one, other in pairs:
            for place in (one, other):
                if place not in small:
                    small[place] = _small(thumbnails, first[place].sha256)
            left, right = small[one], small[other]
            if left is not None and right is not None and (alike := float(left @ right)) >= near:
                found.append(Near(first[one], first[other], round(min(1.0, alike), 4)))
            bar.advance(1)
    return Copies(exact, sorted(found, key=lambda pair: -pair.similarity))


def _small(thumbnails: Thumbnails, sha256: str) -> Floats | None:
    """(SIDE²,) grey, mean 0 and length 1; None without a thumbnail, or for one of a single shade."""
    try:
        image = thumbnails.open(sha256)
    except BadImage:
        return None
    grey = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32).reshape(-1)
    centred = grey - grey.mean()
    length = float(np.linalg.norm(centred))
    return None if length < SIDE else centred / np.float32(length)
