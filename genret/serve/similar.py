"""Search by vectors: pictures that resemble a picture, a few of the catalog's, or these and words together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import normalize

from genret.api import Hit, Restriction, SearchResult
from genret.errors import GenretError
from genret.search.catalog import CatalogRetriever
from genret.search.dense import dense_search
from genret.search.restrict import Restrictions


@torch.no_grad()
def by_vectors(
    retriever: CatalogRetriever,
    k: int,
    restrict: Restriction,
    *,
    words: str = "",
    picture: Image.Image | None = None,
    like: Sequence[str] = (),
) -> SearchResult:
    """The k pictures whose vectors are nearest to the mean of those asked for, without those of `like`."""
    began = time.perf_counter()
    with retriever.catalog.snapshot() as snapshot:
        if not snapshot.feature_dim:
            raise GenretError("this run keeps no vectors of its pictures, so it cannot be searched by a picture")
        parts = list[torch.Tensor]()
        if words:
            parts.append(retriever.text_vectors([words])[0])
        if picture is not None:
            raw = retriever.encoder.image_features([picture])
            parts.append(retriever.encoder.project_images(raw.to(retriever.device)).float().cpu()[0])
        if like:
            without = [*restrict.without, *like]
            restrict = restrict._replace(without=without)
            parts.append(normalize(snapshot.features_of(snapshot.keys_of(like)).mean(0), dim=0))
        (allowed,) = Restrictions(restrict, 1).resolved(snapshot, 0, 1)
        keys = _searchable(retriever, snapshot)
        chosen = torch.from_numpy(np.flatnonzero(allowed.among(keys[0])))
        found = dense_search(normalize(torch.stack(parts).mean(0), dim=0)[None], keys[1], k, chosen)
        there = found.rows[0] >= 0
        rows = snapshot.lookup(keys[0][found.rows[0][there].numpy()])
        scores = found.scores[0][there].tolist()
    hits = [
        Hit(rank, row.image_id, row.uri, score, None, row.metadata)
        for rank, (row, score) in enumerate(zip(rows, scores, strict=True), 1)
    ]
    return SearchResult(words, hits, None, 1000 * (time.perf_counter() - began))


def _searchable(retriever: CatalogRetriever, snapshot: Any) -> tuple[np.ndarray, torch.Tensor]:
    """Keys and vectors of all searchable pictures, read once for each version of the catalog. One thread calls this."""
    known = vars(retriever).get("_served_vectors")
    if known is None or known[0] != snapshot.version:
        keys = snapshot.searchable_keys()
        known = snapshot.version, keys, snapshot.features_of(keys)
        vars(retriever)["_served_vectors"] = known
    return known[1], known[2]
