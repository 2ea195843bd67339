"""Queries of more than words: pictures, images to be like, words for what must not be seen.

The function behind `Run.search` for `genret.Query`.

    B queries   N images   D width of the shared space
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genret.api import Encoder, Hit, Query, Restriction, SearchResult
from genret.catalog.store import Snapshot
from genret.errors import UsageError
from genret.kit.encode import opened, text_vectors
from genret.kit.images import as_rgb, decode_image, read_bytes
from genret.run import Run
from genret.search.catalog import CatalogRetriever
from genret.search.ranking import Ranked
from genret.search.restrict import Allowed, Restrictions

POOL = 50
"""Minimum number of candidates among which negative words reorder."""
BLOCK = 65_536
"""Number of stored vectors in memory at a time."""
AT_A_TIME = 32
"""Queries with pictures answered together."""


def search(
    run: Run,
    queries: Sequence[str | Query],
    k: int,
    *,
    num_beams: int | None = None,
    restrict: Restriction | Sequence[Restriction] = Restriction(),
    min_confidence: float | None = None,
) -> list[SearchResult]:
    """Answers queries in the order asked; options are those of `Retriever.search`."""
    asked = [one if isinstance(one, Query) else Query(text=one) for one in queries]
    if k < 0:
        raise UsageError(f"k is how many images to find, from 0, not {k}")
    if min_confidence is not None and any(one.has_picture for one in asked):
        raise UsageError("confidence is calibrated for words: leave min_confidence out for queries with pictures")
    each = _restrictions(asked, restrict)
    retriever, results = run.retriever, dict[int, SearchResult]()
    for wanted in ("words", "without", "picture"):
        rows = [row for row, one in enumerate(asked) if _kind(one) == wanted]
        some, allowed = [asked[row] for row in rows], [each[row] for row in rows]
        if wanted == "picture":
            parts = range(0, len(rows), AT_A_TIME)
            found = [
                result
                for at in parts
                for result in _like(retriever, some[at : at + AT_A_TIME], allowed[at : at + AT_A_TIME], k)
            ]
        else:
            depth = k if wanted == "words" else max(k, POOL)
            texts = [one.text for one in some]
            found = retriever.search(texts, depth, num_beams=num_beams, restrict=allowed, min_confidence=min_confidence)
        if wanted == "without":
            found = _without(retriever, some, found, k)
        results |= zip(rows, found, strict=True)
    return [results[row] for row in range(len(asked))]


def _kind(query: Query) -> str:
    return "picture" if query.has_picture else "without" if query.without else "words"


def _restrictions(queries: Sequence[Query], restrict: Restriction | Sequence[Restriction]) -> list[Restriction]:
    """Those given, and what the queries themselves exclude."""
    each = [restrict] * len(queries) if isinstance(restrict, Restriction) else list(restrict)
    if len(each) != len(queries):
        raise UsageError(f"there are {len(queries)} queries and {len(each)} restrictions; give each query its own")
    return [
        one._replace(without=(*one.without, *query.like), unlike=(*one.unlike, *query.unlike))
        if query.like or query.unlike
        else one
        for one, query in zip(each, queries, strict=True)
    ]


def _like(
    retriever: CatalogRetriever, queries: Sequence[Query], restrict: Sequence[Restriction], k: int
) -> list[SearchResult]:
    """Queries with pictures: by the stored vectors."""
    began = time.perf_counter()
    with retriever.opened() as (snapshot, index):
        if not snapshot.feature_dim:
            raise UsageError("this run keeps no vectors of its images, so it cannot be searched by a picture")
        vectors = picture_vectors(retriever.encoder, retriever.device, queries, snapshot)
        allowed = Restrictions(restrict, len(queries)).resolved(snapshot, 0, len(queries))
        pools = [max(k, POOL) if one.without else k for one in queries]
        ranked = nearest(snapshot, vectors, max(1, min(max(pools), snapshot.highest_key())), allowed)
        if index is None:
            ranked = Ranked.nothing(len(queries))
        found = retriever.hits(snapshot, index, ranked, max(pools))
    elapsed = 1000 * (time.perf_counter() - began) / len(queries)
    results = [
        SearchResult(str(query), hits[:pool], None, elapsed)
        for query, hits, pool in zip(queries, found, pools, strict=True)
    ]
    negative = [row for row, query in enumerate(queries) if query.without]
    some = [queries[row] for row in negative], [results[row] for row in negative]
    for row, result in zip(negative, _without(retriever, *some, k, vectors[negative]), strict=True):
        results[row] = result
    return results


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
            keys = snapshot.keys_of(query.like, searchable=True)
            if len(unknown := np.flatnonzero(keys < 0)):
                raise UsageError(f"no searchable image has the id '{query.like[int(unknown[0])]}'")
            liked = snapshot.features_of(keys).mean(0)
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
    if not len(keys):
        return Ranked.nothing(len(vectors))
    parts = [
        Ranked.of((vectors @ snapshot.features_of(block).T).numpy(), block, k, allowed)
        for block in (keys[start : start + BLOCK] for start in range(0, len(keys), BLOCK))
    ]
    found = Ranked(*(np.concatenate(columns, axis=1) for columns in zip(*parts, strict=True)))
    order = np.lexsort((found.images, -found.scores), axis=1)
    return found.take(order).first(k)


def _without(
    retriever: CatalogRetriever,
    queries: Sequence[Query],
    found: Sequence[SearchResult],
    k: int,
    vectors: Tensor | None = None,
) -> list[SearchResult]:
    """Hits reordered: the more similar to one of the query's negative words, the lower; then the first k.

    vectors (B, D): the queries', by default of their words. For an image x, with a = q · x, the score s becomes
    s − std(s) / std(a) · max_j n_j · x, where n_j are the unit vectors of the negative words and the deviations those
    over the hits: Rocchio's subtraction of vectors, in the unit of s. Of cosines it is q · x − max_j n_j · x.
    """
    if not queries:
        return []
    if vectors is None:
        vectors = retriever.text_vectors([query.text for query in queries])
    results = list[SearchResult]()
    for query, vector, result in zip(queries, vectors, found, strict=True):
        hits = result.hits
        if len(hits) > 1:
            with retriever.opened() as (snapshot, _):
                keys = snapshot.keys_of([hit.image_id for hit in hits])
                hits = [hit for hit, key in zip(hits, keys.tolist(), strict=True) if key >= 0]  # still there
                features = snapshot.features_of(keys[keys >= 0])
            scores = np.array([hit.score for hit in hits])
            spread = scores.std() / max(1e-9, float((features @ vector).std(correction=0)))
            scores -= spread * (features @ retriever.text_vectors(query.without).T).amax(1).numpy()
            order = np.argsort(-scores, kind="stable")
            hits = [_at(hits[place], rank, scores[place]) for rank, place in enumerate(order, 1)]
        results.append(result._replace(hits=hits[:k]))
    return results


def _at(hit: Hit, rank: int, score: float) -> Hit:
    return hit._replace(rank=rank, score=float(score))
