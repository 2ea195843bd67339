"""What is asked: a split's images, searched by their captions; and where the right ones stand in an answer.

Q queries   N images   D width   B queries of a batch
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genret.errors import UnknownName
from genret.evaluate.metrics import MISSED, Ints, Relevant
from genret.kit.encode import encode_texts
from genret.kit.feature_cache import FeatureCache
from genret.kit.wording import wording
from genret.search.catalog import CatalogRetriever
from genret.search.ranking import Ranked
from genret.settings import Settings


class Question(NamedTuple):
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


def question_of(retriever: CatalogRetriever, split: str, settings: Settings, ui: Any) -> Question:
    """Reads the split from the catalog; `UnknownName` for one without captions."""
    catalog = retriever.catalog
    captions = catalog.captions(split)
    if not captions.texts:
        raise UnknownName(
            "split", split, [name for name in catalog.splits() if name], "only splits with captions can be evaluated"
        )
    keys = catalog.keys(split)
    encoder = retriever.encoder
    with FeatureCache.of_tower(settings.features_dir, encoder.tower_key("text")) as cache:
        raw = encode_texts(encoder, captions.texts, cache, progress=ui.progress, label="queries")
    with torch.no_grad():
        parts = [encoder.project_texts(part.to(retriever.device)).float().cpu() for part in raw.split(8192)]
    image_ids = [row.image_id for row in catalog.lookup(keys)]
    relevant = np.searchsorted(keys, captions.image_keys)
    return Question(split, keys, image_ids, catalog.features_of(keys), captions.texts, relevant, torch.cat(parts))


def answers_of(question: Question) -> Relevant:
    """The images that answer each query: its own, and those that have the same words for a caption."""
    words = [wording(query) for query in question.queries]
    images: dict[str, set[int]] = {}
    for word, row in zip(words, question.relevant.tolist(), strict=True):
        images.setdefault(word, set()).add(row)
    return Relevant.of([images[word] for word in words])


def first_rank(found: Tensor, wanted: Tensor) -> Ints:
    """found (B, w) best first, wanted (B, A), -1 pads → (B,) the best place, from 1, of any wanted one; else MISSED."""
    match = ((found[:, :, None] == wanted[:, None, :]) & (wanted != -1)[:, None, :]).any(-1)
    place = match.float().argmax(1) + 1
    return torch.where(match.any(1), place, MISSED).cpu().numpy()


def image_ranks(ranked: Ranked, question: Question) -> Ints:
    """(Q,) ranks from 1 of the right images."""
    return first_rank(torch.from_numpy(ranked.images), torch.from_numpy(question.relevant)[:, None])
