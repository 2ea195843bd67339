"""A run's first stage over more images than it has: its own and synthetic ones, to measure speed.

Model, queries and the images of the run are real; a synthetic image is a random identifier or a random vector. So the
time of a search is realistic, and its results mean nothing. Random identifiers spread evenly over the codes, which
gives the widest possible trie.

N images   M levels   D width   R identifiers
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from genret.api import Identifiers, QueryBatch
from genret.catalog.store import Snapshot
from genret.errors import GenretError
from genret.kit.arrays import Floats, Ints
from genret.search.image_trie import ImageTrie
from genret.search.ranking import rank_images
from genret.search.tokenization import tokenize_identifiers
from genret.search.trace import Enlarged
from genret.toolbox.memory import free_bytes

if TYPE_CHECKING:
    from genret.components.retrievers.generative import GenerativeRetriever
    from genret.components.retrievers.two_tower import TwoTowerRetriever

SEED = 0


def made_up_codes(sizes: Sequence[int], count: int) -> Tensor:
    """(count, M) codes, uniform at each level."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.stack([torch.randint(size, (count,), generator=generator) for size in sizes], dim=1)


def trie(retriever: GenerativeRetriever, snapshot: Snapshot, num_images: int) -> Enlarged:
    """Search over the catalog's identifiers and random ones."""
    sizes, keys = retriever.identifier.vokens.sizes, snapshot.searchable_keys()
    extra = max(0, num_images - len(keys))
    rows = snapshot.read_identifiers(searchable=True)
    if rows.codes is None or not sizes:
        raise GenretError("identifiers of words cannot be made up, so such a run's catalog cannot be filled")
    own = torch.from_numpy(rows.codes).long()
    own = torch.nn.functional.pad(own, (0, len(sizes) - own.shape[1]), value=-1)
    codes = torch.cat([own, made_up_codes(sizes, extra)])
    first = int(keys[-1]) + 1  # synthetic images have keys that no image of the run has
    images = np.concatenate([rows.image_keys, np.arange(first, first + extra)])
    identifiers = Identifiers(torch.arange(len(codes)), codes)
    tokens = tokenize_identifiers(retriever.backbone, identifiers, retriever.end_symbol)
    index = ImageTrie.build(tokens, images).to(retriever.device)
    features = snapshot.features_of(keys)

    def search(queries: Sequence[str], num_beams: int | None = None, k: int = 10) -> Any:
        batch = QueryBatch(queries, retriever.text_vectors)

        def similarity(query: Ints, image: Ints) -> Floats:
            """Orders the run's images within an identifier; synthetic images have no vectors."""
            real = image < first
            scores = np.zeros(len(image), np.float32)
            at = torch.from_numpy(np.searchsorted(keys, image[real]))
            scores[real] = (batch.vectors[torch.from_numpy(query[real])] * features[at]).sum(-1).numpy()
            return scores

        beams = retriever.beams(batch, index.trie, num_beams or retriever.options.num_beams)
        return rank_images(beams.leaves.cpu().numpy(), beams.scores.cpu().numpy(), index.leaf_images, similarity)

    return Enlarged(len(keys) + extra, search, index.nbytes)


def vectors(retriever: TwoTowerRetriever, snapshot: Snapshot, num_images: int) -> Enlarged:
    """Search over the catalog's vectors and random unit vectors; `GenretError` if memory does not suffice."""
    keys, width = snapshot.searchable_keys(), snapshot.feature_dim
    total = max(num_images, len(keys))
    needed, room = 4 * width * total, free_bytes()
    if room is not None and 2 * needed > room:
        raise GenretError(f"the vectors of {total:,} images take {needed / 2**30:.1f} GiB")
    generator = torch.Generator().manual_seed(SEED)
    features = torch.empty(total, width)
    features[: len(keys)] = snapshot.features_of(keys)
    for part in features[len(keys) :].split(2**16):
        part.normal_(generator=generator)
        part /= part.norm(dim=-1, keepdim=True)
    nearest = retriever.nearest_of(features)
    return Enlarged(total, lambda queries, num_beams=None, k=10: nearest(retriever.text_vectors(queries), k), needed)
