"""A trained run's search over more images than it has: its own, and made-up ones that fill its catalog up.

The model, its queries and the images of the run are real; a made-up image is a random identifier, or a random vector.
So how long a search takes is measured as it would be, and what it finds means nothing. Random identifiers spread evenly
over the codes, which is the widest trie that there can be.

N images   M levels   D width   R identifiers
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genret.api import Identifiers
from genret.components.retrievers.generative import GenerativeRetriever
from genret.components.retrievers.two_tower import TwoTowerRetriever, graph_of, nearest
from genret.errors import GenretError
from genret.lab.speed.speed import free_bytes
from genret.search.catalog import Asked, CatalogRetriever
from genret.search.dense import dense_search
from genret.search.image_trie import ImageTrie
from genret.search.ranking import Floats, Ints, rank_images
from genret.search.spelling import tokens_with_end

SEED = 0


class Filled(NamedTuple):
    num_images: int
    search: Callable[[Sequence[str]], Any]
    """From words to ranked images, all that a search does but for looking up their names"""
    num_bytes: int
    """What is held of all images"""


def filled(retriever: CatalogRetriever, num_images: int, num_beams: int | None = None, k: int = 10) -> Filled:
    """The first stage of a run over its own searchable images and as many made-up ones as it takes.

    A catalog that has more keeps what it has. `GenretError` where identifiers cannot be made up, or memory is short.
    """
    keys = retriever.catalog.searchable_keys()
    extra = max(0, num_images - len(keys))
    if isinstance(retriever, GenerativeRetriever):
        return _generative(retriever, keys, extra, num_beams or retriever.options.num_beams)
    assert isinstance(retriever, TwoTowerRetriever)
    return _dense(retriever, keys, extra, k)


def made_up_codes(sizes: Sequence[int], count: int) -> Tensor:
    """(count, M) codes, each level's drawn evenly."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.stack([torch.randint(size, (count,), generator=generator) for size in sizes], dim=1)


def _generative(retriever: GenerativeRetriever, keys: Ints, extra: int, num_beams: int) -> Filled:
    sizes = retriever.identifier.vokens.sizes
    rows = retriever.catalog.read_identifiers(searchable=True)
    if rows.codes is None or not sizes:
        raise GenretError("identifiers of words cannot be made up, so such a run's catalog cannot be filled")
    own = torch.from_numpy(rows.codes).long()
    own = torch.nn.functional.pad(own, (0, len(sizes) - own.shape[1]), value=-1)
    codes = torch.cat([own, made_up_codes(sizes, extra)])
    first = int(keys[-1]) + 1  # made-up images have keys that no image of the run has
    images = np.concatenate([rows.image_keys, np.arange(first, first + extra)])
    tokens = tokens_with_end(
        retriever.backbone, Identifiers(torch.arange(len(codes)), codes), retriever.options.end_symbol
    )
    index = ImageTrie.build(tokens, images).to(retriever.device)
    features = retriever.catalog.features_of(keys)

    def search(queries: Sequence[str]) -> Any:
        asked = Asked(queries, retriever.text_vectors)

        def similarity(query: Ints, image: Ints) -> Floats:
            """What orders images of one identifier: of the run's own ones; made-up ones have no vectors."""
            real = image < first
            scores = np.zeros(len(image), np.float32)
            at = torch.from_numpy(np.searchsorted(keys, image[real]))
            scores[real] = (asked.vectors[torch.from_numpy(query[real])] * features[at]).sum(-1).numpy()
            return scores

        beams = retriever.beams(queries, asked.vectors if retriever.guided else None, index.trie, num_beams)
        return rank_images(beams.leaves.cpu().numpy(), beams.scores.cpu().numpy(), index.leaf_images, similarity)

    return Filled(len(keys) + extra, search, index.nbytes)


def _dense(retriever: TwoTowerRetriever, keys: Ints, extra: int, k: int) -> Filled:
    width = retriever.catalog.feature_dim
    needed, room = 4 * width * (len(keys) + extra), free_bytes()
    if room is not None and 2 * needed > room:
        raise GenretError(f"the vectors of {len(keys) + extra:,} images take {needed / 2**30:.1f} GiB")
    generator = torch.Generator().manual_seed(SEED)
    features = torch.empty(len(keys) + extra, width)
    features[: len(keys)] = retriever.catalog.features_of(keys)
    for part in features[len(keys) :].split(2**16):
        part.normal_(generator=generator)
        part /= part.norm(dim=-1, keepdim=True)
    graph = graph_of(features, retriever.options.index)

    def search(queries: Sequence[str]) -> Any:
        vectors = retriever.text_vectors(queries)
        return dense_search(vectors, features, k) if graph is None else nearest(vectors, features, graph, k)

    return Filled(len(features), search, needed)
