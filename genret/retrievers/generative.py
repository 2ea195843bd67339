"""A language model over a catalog: it writes identifiers under the catalog's trie (paper 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genret.catalog.codec import pack_codes, pack_texts
from genret.catalog.store import IdentifierRows
from genret.decode.beam import Beams, beam_search
from genret.decode.trie import Trie
from genret.errors import GenretError
from genret.interfaces import Backbone, Corpus, Identifier, Identifiers, SearchScore
from genret.recipe import SearchOptions
from genret.retrievers.catalog import CatalogRetriever
from genret.retrievers.ranking import Ints, LeafImages, Ranked, rank_images


class IndexedTrie(NamedTuple):
    """Some images' identifiers as a trie, and the way back from its leaves."""

    trie: Trie
    leaf_images: LeafImages
    identifiers: Identifiers
    row_of_leaf: Ints
    """(U,) one identifier row of each leaf, for showing it"""


def index_trie(backbone: Backbone, identifiers: Identifiers, images: Ints, end_symbol: bool) -> IndexedTrie:
    """identifiers: R rows whose owners count through `images` (N,) → their trie, leading to the values of `images`."""
    trie = Trie.build(tokens_with_end(backbone, identifiers, end_symbol))
    leaf_of_row = trie.leaf_of_row.numpy()
    row_of_leaf = np.zeros(trie.num_leaves, dtype=np.int64)
    row_of_leaf[leaf_of_row] = np.arange(len(leaf_of_row))
    leaf_images = LeafImages.build(leaf_of_row, images[identifiers.owners.numpy()], trie.num_leaves)
    return IndexedTrie(trie.to(_device(backbone)), leaf_images, identifiers, row_of_leaf)


def tokens_with_end(backbone: Backbone, identifiers: Identifiers, end_symbol: bool) -> Tensor:
    """(R, L) token ids, -1 pads; the end symbol is added where asked for, or where identifiers may vary in length."""
    tokens = backbone.tokens(identifiers)
    if not end_symbol and not may_end_early(backbone):
        if bool((tokens < 0).any()):
            raise GenretError("identifiers of this scheme vary in length, so its `vokens` have to say `variable=True`")
        return tokens
    tokens = torch.nn.functional.pad(tokens, (0, 1), value=-1)
    lengths = (tokens >= 0).sum(1, keepdim=True)
    return tokens.scatter(1, lengths, backbone.end_token)


def may_end_early(backbone: Backbone) -> bool:
    """Whether the scheme's identifiers vary in length: those of ordinary tokens, and where it says so.

    A matter of the scheme, not of the identifiers at hand: a few may be equally long by chance, and have to be spelt as
    the model has learnt it.
    """
    first, second = backbone.level_tokens(0), backbone.level_tokens(1)
    return first is None or (second is not None and bool((second == backbone.end_token).any()))


def search_trie(
    backbone: Backbone,
    queries: Sequence[str],
    trie: Trie,
    num_beams: int,
    options: SearchOptions,
    allowed: Tensor | None = None,
) -> Beams:
    """Constrained beam search with the recipe's score."""
    with torch.no_grad():
        levels = columns_of(backbone, options.score, trie.depth)
        return beam_search(backbone, queries, trie, num_beams, options.score, levels, allowed)


def columns_of(backbone: Backbone, score: SearchScore, length: int) -> list[Tensor | None]:
    """The tokens over which position l is normalised, None for the whole vocabulary.

    `trie` is normalised by the search itself; training, which knows no trie, treats it like `level`.
    """
    return [None if score == "vocab" else backbone.level_tokens(level) for level in range(length)]


def by_image(rows: IdentifierRows) -> tuple[Ints, Identifiers]:
    """A catalog's rows → the images' keys (N,), ascending, and identifiers whose owners count through them."""
    images, owners = np.unique(rows.image_keys, return_inverse=True)
    codes = None if rows.codes is None else torch.from_numpy(rows.codes).long()
    return images, Identifiers(torch.from_numpy(owners), codes, rows.texts)


def packed_by_image(identifiers: Identifiers, num_images: int) -> list[list[bytes]]:
    """The identifiers of each image as the catalog keeps them."""
    if identifiers.codes is not None:
        blobs = pack_codes(identifiers.codes)
    else:
        blobs = pack_texts(identifiers.texts or ())
    packed: list[list[bytes]] = [[] for _ in range(num_images)]
    for owner, blob in zip(identifiers.owners.tolist(), blobs, strict=True):
        packed[owner].append(blob)
    return packed


class GenerativeRetriever(CatalogRetriever):
    """AVG, GRACE, IRGen: whatever the identifiers are made of."""

    def __init__(self, *args: Any, identifier: Identifier, backbone: Backbone, **parts: Any):
        super().__init__(*args, **parts)
        self.identifier = identifier
        self.backbone = backbone
        self._index: IndexedTrie | None = None
        self._index_version = -1

    @classmethod
    def load(cls, folder: Path, **parts: Any) -> CatalogRetriever:
        identifier, backbone = parts["identifier"], parts["backbone"]
        identifier.load(folder / "identifier")
        backbone.load(folder / "generator", identifier.vokens)
        backbone.module.to(parts["device"])
        return super().load(folder, **parts)

    @property
    def num_beams(self) -> int | None:
        return self.options.num_beams

    @property
    def caption_log_probs(self) -> Callable[[Tensor, Sequence[str]], Tensor] | None:
        if not self.backbone.reads_features:
            return None
        return lambda features, captions: self.backbone.caption_log_probs(features.to(self.device), captions)

    @property
    def indexed(self) -> IndexedTrie | None:
        """The trie of all searchable images, rebuilt when the catalog has changed; None without images."""
        version = self.catalog.version
        if version != self._index_version:
            images, identifiers = by_image(self.catalog.read_identifiers(searchable=True))
            options = self.options
            self._index = index_trie(self.backbone, identifiers, images, options.end_symbol) if len(images) else None
            self._index_version = version
        return self._index

    def candidates(self, queries: Sequence[str], k: int, num_beams: int | None, allowed: Ints | None) -> Ranked:
        index = self.indexed
        if index is None:
            return Ranked(*(np.full((len(queries), 1), fill) for fill in (-1, -np.inf, -1)))
        leaves = None
        if allowed is not None:
            starts, images = index.leaf_images
            reached = np.concatenate([[0], np.cumsum(np.isin(images, allowed))])
            leaves = torch.from_numpy(reached[starts[1:]] > reached[starts[:-1]])[None]

        def search(queries: Sequence[str], width: int) -> Ranked:
            beams = search_trie(self.backbone, queries, index.trie, width, self.options, leaves)
            ranked = rank_images(
                beams.leaves.cpu().numpy(), beams.scores.cpu().numpy(), index.leaf_images, self.similarity(queries)
            )
            return ranked if allowed is None else _only(ranked, allowed)

        width = num_beams or k
        ranked, wanted = search(queries, width), min(k, width)
        if len(ranked.fewer_than(wanted)):  # than there are, or because several identifiers led to one image
            images = index.leaf_images.images
            wanted = min(wanted, len(np.unique(images if allowed is None else images[np.isin(images, allowed)])))
        while width < index.trie.num_leaves and len(rows := ranked.fewer_than(wanted)):
            width *= 2
            ranked = ranked.replaced(rows, search([queries[row] for row in rows], width))
        return ranked

    def identifiers(self, features: Tensor, image_ids: Sequence[str]) -> list[list[bytes]]:
        if self.identifier.new_images == "numbered":
            # one by one: which place an image has does not depend on what else comes with it
            places = zip(image_ids, features[:, None], self._places(image_ids), strict=True)
            parts = (self.identifier.identify(Corpus([name], row, named_before=place)) for name, row, place in places)
            return [packed for part in parts for packed in packed_by_image(part, 1)]
        taken = None
        if self.identifier.avoids_collisions:
            taken = by_image(self.catalog.read_identifiers(searchable=True))[1].codes
        corpus = Corpus(image_ids, features, taken=taken)
        return packed_by_image(self.identifier.identify(corpus), len(image_ids))

    def _places(self, image_ids: Sequence[str]) -> list[int]:
        """How many images came into the catalog before each: its key, or the one that it will get, less one."""
        keys = self.catalog.keys_of(image_ids).tolist()
        new = dict.fromkeys(image_id for image_id, key in zip(image_ids, keys, strict=True) if key < 0)
        place = {image_id: self.catalog.highest_key() + i for i, image_id in enumerate(new)}
        return [place[image_id] if key < 0 else key - 1 for image_id, key in zip(image_ids, keys, strict=True)]

    def names(self, keys: Ints, leaves: Ints) -> list[list[str] | None]:
        if not len(leaves):
            return []
        index = self._index  # the trie that the leaves belong to, even if the catalog has changed since
        assert index is not None
        vokens = self.identifier.vokens
        rows = index.row_of_leaf[leaves]
        if index.identifiers.codes is None:
            texts = index.identifiers.texts
            assert texts is not None
            return [[texts[row]] for row in rows]
        codes = index.identifiers.codes[torch.from_numpy(rows)].tolist()
        return [[vokens.name(level, code) for level, code in enumerate(row) if code >= 0] for row in codes]


def _only(ranked: Ranked, allowed: Ints) -> Ranked:
    """Drops images that merely share an identifier with an allowed one."""
    keep = np.isin(ranked.images, allowed)
    order = np.argsort(~keep, axis=1, kind="stable")
    images = np.where(keep, ranked.images, -1)
    scores = np.where(keep, ranked.scores, -np.inf).astype(np.float32)
    return Ranked(*(np.take_along_axis(table, order, axis=1) for table in (images, scores, ranked.leaves)))


def _device(backbone: Backbone) -> torch.device:
    return next(backbone.module.parameters()).device
