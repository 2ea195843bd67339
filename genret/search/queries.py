"""Queries of more than words: pictures, images to be like, words for what must not be seen.

B queries   C candidates   N images   D width of the shared space
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genret.api import Encoder, Query, Restriction
from genret.catalog.store import Snapshot
from genret.errors import UsageError
from genret.kit.encode import opened, text_vectors
from genret.kit.images import as_rgb, decode_image, read_bytes
from genret.search.ranking import Floats, Ranked, reordered
from genret.search.restrict import Allowed, keys_of_ids

POOL = 50
"""Minimum number of candidates among which negative words reorder."""
BLOCK = 65_536
"""Number of stored vectors in memory at a time."""


def as_query(query: str | Query) -> Query:
    return query if isinstance(query, Query) else Query(text=query)


def in_batches(queries: Sequence[Query], size: int) -> Iterator[list[int]]:
    """Positions of queries that are answered together: all with pictures, or none."""
    for with_picture in (False, True):
        rows = [row for row, query in enumerate(queries) if query.has_picture == with_picture]
        yield from (rows[start : start + size] for start in range(0, len(rows), size))


def restrictions_of(
    queries: Sequence[Query], restrict: Restriction | Sequence[Restriction]
) -> Restriction | Sequence[Restriction]:
    """With what the queries themselves exclude."""
    if not any(query.like or query.unlike for query in queries) or (
        not isinstance(restrict, Restriction) and len(restrict) != len(queries)
    ):
        return restrict
    each = [restrict] * len(queries) if isinstance(restrict, Restriction) else restrict
    return [
        one._replace(without=(*one.without, *query.like), unlike=(*one.unlike, *query.unlike))
        for one, query in zip(each, queries, strict=True)
    ]


def picture_vectors(encoder: Encoder, device: torch.device, queries: Sequence[Query], snapshot: Snapshot) -> Tensor:
    """(B, D) unit rows: the sum of the unit vectors of text, picture and liked images (their mean), normalized."""
    total = torch.zeros(len(queries), snapshot.feature_dim)
    if rows := [row for row, query in enumerate(queries) if query.text.strip()]:
        total[rows] += text_vectors(encoder, device, [queries[row].text for row in rows])
    if rows := [row for row, query in enumerate(queries) if query.image is not None]:
        features = encoder.image_features([_opened(queries[row].image) for row in rows])
        total[rows] += encoder.project_images(features.to(device)).float().cpu()
    for row, query in enumerate(queries):
        if query.like:
            liked = snapshot.features_of(keys_of_ids(snapshot, query.like)).mean(0)
            total[row] += torch.nn.functional.normalize(liked, dim=0)
    return torch.nn.functional.normalize(total, dim=1)


def _opened(image: object) -> Image.Image:
    if isinstance(image, Image.Image):
        return opened(lambda: as_rgb(image))
    if isinstance(image, str | Path):
        path = Path(image).expanduser()
        return opened(lambda: decode_image(read_bytes(path), str(path)))
    if isinstance(image, bytes | bytearray | memoryview):
        return opened(lambda: decode_image(bytes(image), "the query's picture"))
    raise UsageError(f"a query's picture is a file, bytes or a PIL image, no {type(image).__name__}")


def nearest(snapshot: Snapshot, vectors: Tensor, k: int, allowed: Sequence[Allowed]) -> Ranked:
    """vectors (B, D) → the k images of the most similar stored vectors, among all that may be found."""
    keys = snapshot.searchable_keys()
    parts = [
        Ranked.of((vectors @ snapshot.features_of(block).T).numpy(), block, k, allowed)
        for block in (keys[start : start + BLOCK] for start in range(0, len(keys), BLOCK))
    ]
    found = Ranked(*(np.concatenate(columns, axis=1) for columns in zip(*parts, strict=True)))
    order = np.lexsort((found.images, -found.scores), axis=1)
    return found.take(order).first(k)


def without_words(ranked: Ranked, vectors: Tensor, negative: Sequence[Tensor | None], snapshot: Snapshot) -> Ranked:
    """Candidates (B, C) reordered: the more similar to one of the query's negative words, the lower.

    vectors (B, D): the queries'. negative: per query (n, D) unit rows, or None. For an image x, with a = q · x, the
    score s becomes s − std(s) / std(a) · max_j n_j · x, where the deviations are those over the candidates: Rocchio's
    subtraction of vectors, in the unit of s. For scores that are cosines it is exactly q · x − max_j n_j · x.
    """
    scores = ranked.scores.copy()
    for row, words in enumerate(negative):
        there = ranked.images[row] >= 0
        if words is None or there.sum() < 2:
            continue
        features = snapshot.features_of(ranked.images[row][there])
        spread = float(np.std(scores[row][there]) / max(1e-9, float((features @ vectors[row]).std(correction=0))))
        penalty = (features @ words.T).amax(1).numpy()
        scores[row][there] -= spread * penalty
    changed: Floats = np.where(ranked.images < 0, -np.inf, scores).astype(np.float32)
    return reordered(ranked, changed)
