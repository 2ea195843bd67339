"""From ranked identifiers to ranked images, for a whole batch at once.

B queries   b beams   N images   C maximum number of images below one query's beams
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from genret.api import QueryBatch
from genret.catalog.store import Snapshot
from genret.kit.arrays import Floats, Ints

_PACKED = 2**32
"""Image keys below this fit into one 64-bit number with a leaf."""


def dense_similarity(batch: QueryBatch, rows: Ints, snapshot: Snapshot, query: Ints, key: Ints) -> Floats:
    """How ties are ordered: by the similarity of the stored vectors of images `key` to queries `rows[query]`."""
    asked, places = np.unique(rows[query], return_inverse=True)
    return np.asarray((batch.vectors_of(asked)[places] * snapshot.features_of(key)).sum(-1))


class LeafImages(NamedTuple):
    """The images of each leaf of a trie, ascending: `images[starts[leaf]:starts[leaf + 1]]`.

    32-bit numbers if they suffice. U leaves, R identifiers, n of them new.
    """

    starts: NDArray[np.integer]
    """(U + 1,)"""
    images: NDArray[np.integer]
    """(R,)"""

    @classmethod
    def build(cls, leaf_of_row: NDArray[np.integer], image_of_row: NDArray[np.integer], num_leaves: int) -> LeafImages:
        """From R identifiers: the leaf and the image of each."""
        starts = _starts(np.bincount(leaf_of_row, minlength=num_leaves))
        if len(leaf_of_row) == num_leaves:  # no two share a leaf
            images = np.empty_like(image_of_row)
            images[leaf_of_row] = image_of_row
        elif int(image_of_row.max()) < _PACKED:
            images = np.sort(_pairs(leaf_of_row, image_of_row)) % _PACKED
        else:
            images = image_of_row[np.lexsort((image_of_row, leaf_of_row))]
        return cls(starts, compact(images))

    def sizes(self, leaves: Ints) -> Ints:
        """Number of images of each leaf; 0 for leaf -1."""
        return np.where(leaves < 0, 0, self.starts[leaves + 1] - self.starts[leaves])

    def any_of_leaf(self, flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(R,) a flag for each entry of `images` → (U,) whether any entry of the leaf is set."""
        if len(flags) == len(self.starts) - 1 or not len(flags):  # one image each
            return flags
        found: NDArray[np.bool_] = np.logical_or.reduceat(flags, self.starts[:-1])
        return found

    def leaves_at(self, places: Ints) -> Ints:
        """Positions in `images` → their leaves."""
        return np.searchsorted(self.starts, places, side="right") - 1

    def kept(self, keep: NDArray[np.bool_]) -> LeafImages:
        """The entries of `images` whose flag is set, (R,); leaves without entries are dropped, too."""
        counts = np.diff(np.concatenate([[0], np.cumsum(keep)])[self.starts])
        return LeafImages(_starts(counts[counts > 0]), self.images[keep])

    def joined(self, place_of_leaf: Ints, leaf_of_row: Ints, image_of_row: Ints, num_leaves: int) -> LeafImages:
        """With n more identifiers, in linear time in R. place_of_leaf (U,), ascending: the new number of each leaf."""
        leaf_of_entry = np.repeat(place_of_leaf, np.diff(self.starts))
        if max(int(self.images.max(initial=0)), int(image_of_row.max(initial=0))) >= _PACKED:
            both = np.concatenate([leaf_of_entry, leaf_of_row]), np.concatenate([self.images, image_of_row])
            return LeafImages.build(*both, num_leaves)
        counts = np.bincount(leaf_of_row, minlength=num_leaves) + np.bincount(leaf_of_entry, minlength=num_leaves)
        old, new = _pairs(leaf_of_entry, self.images), np.sort(_pairs(leaf_of_row, image_of_row))
        pairs = np.insert(old, np.searchsorted(old, new), new)
        return LeafImages(_starts(counts), compact(pairs % _PACKED))

    def images_of(self, leaves: Ints) -> NDArray[np.integer]:
        """The images of these leaves, one leaf after the other."""
        sizes = self.sizes(leaves)
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return self.images[np.repeat(self.starts[leaves], sizes) + within]


def compact(numbers: NDArray[np.integer]) -> NDArray[np.integer]:
    """The same numbers in 32 bits, if they fit."""
    fits = not len(numbers) or int(numbers.max()) <= np.iinfo(np.int32).max
    return numbers.astype(np.int32 if fits else np.int64, copy=False)


def _pairs(leaf: NDArray[np.integer], image: NDArray[np.integer]) -> Ints:
    """Leaf and image in one number, which has the same order."""
    return leaf.astype(np.int64) * _PACKED + image


def _starts(counts: Ints) -> NDArray[np.integer]:
    starts = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=starts[1:])
    return compact(starts)


class MayFind(Protocol):
    """Which images a query may find (`restrict.Allowed`)."""

    def among(self, keys: NDArray[np.integer]) -> NDArray[np.bool_]: ...


class Ranked(NamedTuple):
    """Images of each query, best first, padded with -1."""

    images: Ints
    """(B, C)"""
    scores: Floats
    """(B, C), -inf where there is no image"""
    leaves: Ints
    """(B, C) the identifier by which the image was reached"""

    @classmethod
    def of(cls, scores: Floats, keys: Ints, k: int, allowed: Sequence[MayFind]) -> Ranked:
        """scores (B, N) of the images with these keys (N,) → the best k that each query may find; ties by key.

        For retrievers that score every image: the last step of `candidates`.
        """
        may_find = {id(one): one.among(keys) for one in allowed}  # (N,) of each different restriction
        shape = len(scores), min(k, len(keys))
        ranked = cls(np.full(shape, -1), np.full(shape, -np.inf, np.float32), np.full(shape, -1))
        for row, one in enumerate(allowed):
            there = np.flatnonzero(may_find[id(one)])
            own = scores[row, there]
            if len(own) > k:  # all candidates for the best k, ties included
                best = np.flatnonzero(own >= np.partition(own, -k)[-k])
                there, own = there[best], own[best]
            order = np.lexsort((keys[there], -own))[:k]
            ranked.images[row, : len(order)], ranked.scores[row, : len(order)] = keys[there[order]], own[order]
        return ranked

    @classmethod
    def nothing(cls, num_queries: int) -> Ranked:
        """The result if there is nothing to search."""
        return cls(*(np.full((num_queries, 1), fill) for fill in (-1, -np.inf, -1)))

    def replaced(self, rows: Ints, other: Ranked) -> Ranked:
        """Replaces these rows by those of `other`, which is not wider."""
        width = max(self.images.shape[1], other.images.shape[1])
        ranked, new = self.padded(width), other.padded(width)
        ranked.images[rows], ranked.scores[rows], ranked.leaves[rows] = new
        return ranked

    @classmethod
    def joined(cls, parts: Sequence[Ranked]) -> Ranked:
        """Batches of queries, concatenated."""
        width = max(part.images.shape[1] for part in parts)
        columns = zip(*(part.padded(width) for part in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))

    def padded(self, width: int) -> Ranked:
        """A copy with room for this many images per query."""
        room = ((0, 0), (0, width - self.images.shape[1]))
        parts: Any = zip(self, (-1, -np.inf, -1), strict=True)
        return Ranked(*(np.pad(part, room, constant_values=fill) for part, fill in parts))

    def first(self, count: int) -> Ranked:
        """The best of each query."""
        return Ranked(self.images[:, :count], self.scores[:, :count], self.leaves[:, :count])

    def take(self, order: Ints) -> Ranked:
        """(B, C) indices → the images at these positions of each query."""
        parts: Any = self
        return Ranked(*(np.take_along_axis(part, order, axis=1) for part in parts))


def rank_images(
    leaves: Ints, scores: Floats, leaf_images: LeafImages, similarity: Callable[[Ints, Ints], Floats] | None = None
) -> Ranked:
    """leaves (B, b), -1 for none, and their scores → the images that they lead to.

    Images of equal score are ordered by `similarity(query rows (n,), images (n,)) → (n,)` if given, then by image. An
    image reached by several identifiers keeps its best score.
    """
    num_queries, num_beams = leaves.shape
    flat = leaves.reshape(-1)
    sizes = leaf_images.sizes(flat)
    beam = np.repeat(np.arange(flat.size), sizes)
    image = leaf_images.images_of(flat).astype(np.int64)
    query, score = beam // num_beams, scores.reshape(-1)[beam]
    tie = np.zeros(len(image), np.float32)
    if similarity is not None and (sizes > 1).any():
        order = np.lexsort((score, query))
        equal = np.pad((np.diff(query[order]) == 0) & (score[order][1:] == score[order][:-1]), 1)
        tied = order[equal[1:] | equal[:-1]]
        tie[tied] = similarity(query[tied], image[tied])
    order = np.lexsort((image, -tie, -score, query))
    query, image, score, leaf = query[order], image[order], score[order], flat[beam][order]
    # keep the first, best occurrence of each image
    mention = np.lexsort((np.arange(len(query)), image, query))
    first = np.ones(len(query), dtype=bool)
    first[mention[1:]] = (query[mention[1:]] != query[mention[:-1]]) | (image[mention[1:]] != image[mention[:-1]])
    query, image, score, leaf = query[first], image[first], score[first], leaf[first]
    counts = np.bincount(query, minlength=num_queries)
    place = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (num_queries, max(1, int(counts.max(initial=0))))
    ranked = Ranked(np.full(shape, -1), np.full(shape, -np.inf, np.float32), np.full(shape, -1))
    ranked.images[query, place], ranked.scores[query, place], ranked.leaves[query, place] = image, score, leaf
    return ranked


def fuse_scores(first: Floats, second: Floats, weight: float) -> Floats:
    """Two scores (B, C) → weight · z(second) + (1 − weight) · z(first), z being standardized over the candidates of a
    query that have both; -inf where one is missing. At weight 1 the second scores themselves."""
    if weight == 1:
        return second
    judged = np.isfinite(first) & np.isfinite(second)
    scores = weight * _standardized(second, judged) + (1 - weight) * _standardized(first, judged)
    return np.where(judged, scores, -np.inf).astype(np.float32)


def _standardized(scores: Floats, judged: NDArray[np.bool_]) -> Floats:
    """Mean 0 and variance 1 over each row's scored entries; all 0 if these are equal."""
    count = np.maximum(judged.sum(axis=1, keepdims=True), 1)
    known = np.where(judged, scores, 0.0).astype(np.float64)
    centered = np.where(judged, known - known.sum(axis=1, keepdims=True) / count, 0.0)
    spread = np.sqrt((centered**2).sum(axis=1, keepdims=True) / count)
    result: Floats = np.where(spread > 1e-9, centered / np.maximum(spread, 1e-9), 0.0)
    return result


def reordered(ranked: Ranked, scores: Floats) -> Ranked:
    """Candidates in the order of new scores (B, C); ties keep their order.

    Candidates without a score (-inf) come last and get the lowest score of all, so that scores stay finite; if no
    candidate of a query has one, the old scores are kept.
    """
    there = ranked.images >= 0
    judged = there & np.isfinite(scores)
    place = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    order = np.lexsort((place, np.where(judged, -scores, 0.0), ~judged, ~there), axis=1)
    lowest = np.where(judged, scores, np.inf).min(axis=1, keepdims=True)
    scores = np.where(judged, scores, np.where(np.isfinite(lowest), lowest, ranked.scores))
    scores = np.where(there, scores, -np.inf).astype(np.float32)
    return ranked._replace(scores=scores).take(order)
