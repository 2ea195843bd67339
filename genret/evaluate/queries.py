"""The queries of an evaluation: a split's images, searched by their captions.

Q queries   N images   D width
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genret.api import Progress, QueryBatch
from genret.errors import GenretError, UnknownName
from genret.evaluate.metrics import Relevant
from genret.kit.arrays import Ints
from genret.kit.captions import normalize_caption
from genret.kit.encode import encode_texts
from genret.kit.feature_cache import FeatureCache
from genret.plugin.code import tower_key
from genret.search.catalog import CatalogRetriever
from genret.search.ranking import Ranked
from genret.search.trace import first_rank


@dataclass(frozen=True, kw_only=True)
class QuerySet:
    """A split's images and captions, ready to be searched."""

    split: str
    keys: Ints
    """(N,) catalog keys, ascending"""
    image_ids: list[str]
    features: Tensor
    """(N, D)"""
    queries: list[str]
    relevant: Ints
    """(Q,) rows of the images"""
    query_features: Tensor
    """(Q, D)"""

    @property
    def batch(self) -> QueryBatch:
        return QueryBatch.known(self.queries, self.query_features)

    @property
    def right_keys(self) -> Ints:
        """(Q,) the catalog key of each query's image"""
        return self.keys[self.relevant]

    def rows(self, ranked: Ranked) -> Ranked:
        """Catalog keys → rows of the images, -1 where there is none."""
        places = np.searchsorted(self.keys, ranked.images)
        return ranked._replace(images=np.where(ranked.images >= 0, places, -1))

    def chosen(self, rows: Ints) -> QuerySet:
        """Some of the queries, over all images."""
        return replace(
            self,
            queries=[self.queries[row] for row in rows],
            relevant=self.relevant[rows],
            query_features=self.query_features[torch.from_numpy(rows)],
        )


def query_set(retriever: CatalogRetriever, split: str, features_dir: Path, progress: Progress) -> QuerySet:
    """Reads the split from the catalog; `UnknownName` for one without captions."""
    catalog = retriever.catalog
    captions = catalog.captions(split)
    if not captions.texts and split in catalog.splits():
        raise GenretError(f"the pictures of split '{split}' have no captions, so no recall can be measured")
    if not captions.texts:
        raise UnknownName("split", split, [name for name in catalog.splits() if name])
    keys, vectors = catalog.keys(split), text_vectors(retriever, captions.texts, features_dir, progress)
    image_ids = [row.image_id for row in catalog.lookup(keys)]
    relevant = np.searchsorted(keys, captions.image_keys)
    return QuerySet(
        split=split,
        keys=keys,
        image_ids=image_ids,
        features=catalog.features_of(keys),
        queries=captions.texts,
        relevant=relevant,
        query_features=vectors,
    )


def text_vectors(retriever: CatalogRetriever, texts: list[str], features_dir: Path, progress: Progress) -> Tensor:
    """(T, D) unit rows, from the cache if a text has been encoded before."""
    encoder = retriever.encoder
    with FeatureCache.of_tower(features_dir, tower_key(encoder, "text")) as cache, torch.no_grad():
        raw = encode_texts(encoder, texts, cache, progress=progress, label="queries")
        return torch.cat([encoder.project_texts(part.to(retriever.device)).float().cpu() for part in raw.split(8192)])


def answers_of(asked: QuerySet) -> Relevant:
    """The relevant images of each query: its own, and those with the same caption."""
    words = [normalize_caption(query) for query in asked.queries]
    images: dict[str, set[int]] = {}
    for word, row in zip(words, asked.relevant.tolist(), strict=True):
        images.setdefault(word, set()).add(row)
    return Relevant.of([images[word] for word in words])


def image_ranks(ranked: Ranked, asked: QuerySet) -> Ints:
    """(Q,) ranks, from 1, of the positives."""
    return first_rank(torch.from_numpy(ranked.images), torch.from_numpy(asked.relevant)[:, None])
