"""The paper's Figure 5: pairs of images that share none, some or all vokens, and the images of single vokens.

Only the catalog is read: identifiers, vectors, captions.

    N images   M levels   D width   T captions
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from genret.api import Vokens
from genret.catalog.store import Catalog, ImageRow
from genret.kit.arrays import Ints
from genret.lab.explain.words import FUNCTION_WORDS
from genret.search.dense import dense_search


class NamedImages(NamedTuple):
    """A split's images with their first identifier, in the catalog's order."""

    rows: list[ImageRow]
    codes: Ints
    """(N, M), -1 after the end"""
    features: Tensor
    """(N, D) unit rows"""
    captions: dict[int, list[str]]
    """By catalog key; only images with captions"""

    def names(self, row: int) -> list[str]:
        """`c0_17`, `c1_203`, …"""
        return [Vokens().name(level, code) for level, code in enumerate(self.codes[row].tolist()) if code >= 0]


class SharedPrefix(NamedTuple):
    """Images whose identifiers share exactly their first `length` vokens."""

    length: int
    num_pairs: int
    similarity: float
    """Mean cosine of their vectors"""
    first: int
    """The pair shown, rows of `NamedImages`: the one of median similarity"""
    second: int
    pair_similarity: float


class VokenView(NamedTuple):
    """What one voken means: the images and captions nearest to the mean of the images that have it."""

    level: int
    code: int
    num_images: int
    """that have it"""
    images: list[int]
    """Rows of `NamedImages`, nearest first"""
    bears: list[bool]
    """Whether each of `images` has it"""
    captions: list[str]
    """Nearest first; empty without caption vectors"""


def named_images(catalog: Catalog, split: str | None = None) -> NamedImages | None:
    """The images of a split (None: all that are searchable), in the order of their keys; None if identifiers are texts,
    or if there are none."""
    found = catalog.read_identifiers(split=split, searchable=None if split else True)
    if found.codes is None or not len(found.image_keys):
        return None
    keys, first = np.unique(found.image_keys, return_index=True)
    captions: dict[int, list[str]] = {}
    for name in [split] if split else [name for name in catalog.splits() if name]:
        told = catalog.captions(name)
        for key, text in zip(told.image_keys.tolist(), told.texts, strict=True):
            captions.setdefault(key, []).append(text)
    return NamedImages(catalog.lookup(keys), found.codes[first], catalog.features_of(keys), captions)


def shared_prefixes(images: NamedImages) -> list[SharedPrefix]:
    """One entry for each number of shared vokens that occurs, from none to all.

    Pairs are neighbours in the order of identifiers: between two images whose identifiers differ after `length` vokens
    there are such neighbours, so no length is missed. Copies of an image do not count as pairs.
    """
    codes = images.codes
    if len(codes) < 2:
        return []
    order = np.lexsort(codes.T[::-1])
    ahead, behind = codes[order[:-1]], codes[order[1:]]
    same = (ahead == behind) & (ahead >= 0)
    lengths = np.where(same.all(axis=1), same.shape[1], same.argmin(axis=1))
    similarity = (images.features[order[:-1]] * images.features[order[1:]]).sum(-1).numpy()
    hashes = np.array([row.sha256 for row in images.rows])
    differs = hashes[order[:-1]] != hashes[order[1:]]
    found = []
    for length in np.unique(lengths[differs]).tolist():
        places = np.flatnonzero((lengths == length) & differs)
        middle = places[np.argsort(similarity[places], kind="stable")[len(places) // 2]]
        found.append(
            SharedPrefix(
                length,
                len(places),
                float(similarity[places].mean()),
                int(order[middle]),
                int(order[middle + 1]),
                float(similarity[middle]),
            )
        )
    return found


def code_counts(images: NamedImages, level: int, size: int) -> list[int]:
    """The number of images with each code of a level."""
    used = images.codes[:, level]
    return np.bincount(used[used >= 0], minlength=size).tolist()


def voken_views(
    images: NamedImages,
    level: int = 0,
    count: int = 4,
    nearest: int = 6,
    captions: Sequence[str] = (),
    caption_features: Tensor | None = None,
) -> list[VokenView]:
    """`count` vokens of a level of at least two images, evenly spread from the most used to rare ones.

    Deeper levels quantize residuals, so their vokens have no meaning of their own: level 0 is the most useful.
    caption_features (T, D) unit rows. Nearest by the cosine of vectors centred per modality, because images and
    captions lie in two cones of the shared space, and some captions are close to every image.
    """
    counts = np.array(code_counts(images, level, 0))
    order = np.argsort(-counts, kind="stable")[: int((counts >= 2).sum())]
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))]
    pictures, texts = _centred(images.features), None if caption_features is None else _centred(caption_features)
    found = []
    for code in chosen.tolist():
        bearers = images.codes[:, level] == code
        centre = pictures[torch.from_numpy(bearers)].mean(0, keepdim=True)
        rows = dense_search(centre, pictures, min(nearest, len(images.rows))).rows[0].tolist()
        told: list[str] = []
        if texts is not None and len(captions):
            near = dense_search(centre, texts, min(4 * nearest, len(captions))).rows[0].tolist()
            told = list(dict.fromkeys(captions[row] for row in near))[:nearest]
        found.append(VokenView(level, code, int(counts[code]), rows, [bool(bearers[row]) for row in rows], told))
    return found


def _centred(features: Tensor) -> Tensor:
    return torch.nn.functional.normalize(features - features.mean(0, keepdim=True), dim=-1)


def nearest_captions(first: Sequence[str], second: Sequence[str]) -> tuple[tuple[str, str], set[str]]:
    """For each image, the caption with the most words in common with the other's, and these words, which the paper
    prints in red. Words have four letters or more; images without captions give empty ones."""
    best: tuple[tuple[str, str], set[str]] = (first[0] if first else "", second[0] if second else ""), set()
    for one in first:
        for other in second:
            if len(common := _words(one) & _words(other)) > len(best[1]):
                best = (one, other), common
    return best


def _words(caption: str) -> set[str]:
    found = {part.strip(".,:;!?()\"'") for part in caption.lower().split()}
    return {word for word in found if len(word) >= 4} - FUNCTION_WORDS
