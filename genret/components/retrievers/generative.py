"""A language model over a catalog: it writes identifiers under the catalog's trie (paper 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genret.api import Additive, Backbone, Corpus, Identifier
from genret.catalog.store import IdentifierRows, View
from genret.decode.beam import Beams
from genret.decode.guide import Guide, Points
from genret.decode.leaf_sets import LeafSets
from genret.decode.trie import Trie
from genret.kit.images import content_hash
from genret.search.beams import search_trie
from genret.search.catalog import Asked, CatalogRetriever
from genret.search.image_trie import ImageTrie
from genret.search.live_trie import LiveTrie
from genret.search.ranking import Ints, Ranked, rank_images
from genret.search.restrict import Allowed
from genret.search.spelling import (
    as_identifiers,
    bare,
    by_image,
    packed_by_image,
    spelling_key,
    tokens_with_end,
)
from genret.search.trie_cache import TrieCache


class GenerativeRetriever(CatalogRetriever):
    """AVG, GRACE, IRGen: whatever the identifiers are made of."""

    def __init__(self, *args: Any, identifier: Identifier, backbone: Backbone, **parts: Any):
        super().__init__(*args, **parts)
        self.identifier = identifier
        self.backbone = backbone
        self._live = LiveTrie(self.spelt, self.device)
        self._points: tuple[Trie, Points] | None = None
        """Of the trie that was last searched with guidance."""

    @classmethod
    def load(cls, folder: Path, **parts: Any) -> CatalogRetriever:
        identifier, backbone = parts["identifier"], parts["backbone"]
        identifier.load(folder / "identifier")
        backbone.load(folder / "generator", identifier.vokens)
        backbone.module.to(parts["device"])
        retriever = super().load(folder, **parts)
        assert isinstance(retriever, GenerativeRetriever)
        retriever._live = LiveTrie(retriever.spelt, parts["device"], retriever._cache(folder / "trie"))
        return retriever

    def _cache(self, folder: Path) -> TrieCache:
        """Identifiers are spelt by this run's models, so the cache of another run, or of another catalog, is none."""
        spelling = spelling_key(self.backbone, self.identifier.vokens, self.options.end_symbol)
        return TrieCache(folder, content_hash(f"{self.catalog.uid} {self.catalog.run_id} {spelling}".encode())[:20])

    def spelt(self, rows: IdentifierRows) -> Tensor:
        """R rows of the catalog → (R, L) tokens, -1 after the end."""
        return tokens_with_end(self.backbone, as_identifiers(rows), self.options.end_symbol)

    @property
    def num_beams(self) -> int | None:
        return self.options.num_beams

    @property
    def guided(self) -> bool:
        """Whether the beam search needs the queries' vectors."""
        return self.options.guidance > 0

    @property
    def wants_vectors(self) -> bool:
        return self.guided or super().wants_vectors

    def guide(self, query_features: Tensor, trie: Trie, allowed: LeafSets | None = None) -> Guide | None:
        """(B, D) the queries' vectors → what draws their beams in `trie`; None where the recipe has no guidance."""
        sums = self.identifier.additive(query_features) if self.guided else None
        if sums is None:
            return None
        # beams live where the language model does, identifiers are made wherever theirs is
        sums = Additive(sums.target.to(self.device), [book.to(self.device) for book in sums.books])
        known = self._points
        if known is None or known[0] is not trie:
            tokens = [self.backbone.level_tokens(level) for level in range(len(sums.books))]
            known = self._points = trie, Points.of(trie, sums.books, tokens)
        return Guide(sums, known[1], trie, self.options.guidance, allowed)

    def beams(
        self,
        queries: Sequence[str],
        query_features: Tensor | None,
        trie: Trie,
        num_beams: int,
        allowed: LeafSets | None = None,
    ) -> Beams:
        """The recipe's beam search in `trie`; `query_features` (B, D) may be None where the search is not `guided`."""
        guide = None if query_features is None else self.guide(query_features, trie, allowed)
        return search_trie(self.backbone, queries, trie, num_beams, self.options, allowed, guide)

    @property
    def caption_log_probs(self) -> Callable[[Tensor, Sequence[str]], Tensor] | None:
        if not self.backbone.reads_features:
            return None
        return lambda features, captions: self.backbone.caption_log_probs(features.to(self.device), captions)

    def searched(self, view: View) -> ImageTrie | None:
        return self._live.at(view)

    def candidates(
        self,
        view: View,
        searched: ImageTrie | None,
        asked: Asked,
        k: int,
        num_beams: int | None,
        allowed: Sequence[Allowed],
    ) -> Ranked:
        queries = asked.texts
        if searched is None:
            return Ranked(*(np.full((len(queries), 1), fill) for fill in (-1, -np.inf, -1)))
        leaves = _leaves(searched, allowed)

        def search(rows: Ints, width: int) -> Ranked:
            there = None if leaves is None else LeafSets.of([leaves[row] for row in rows])
            guiding = asked.vectors[torch.from_numpy(rows)] if self.guided else None
            beams = self.beams([queries[row] for row in rows], guiding, searched.trie, width, there)
            ranked = rank_images(
                beams.leaves.cpu().numpy(),
                beams.scores.cpu().numpy(),
                searched.leaf_images,
                self.similarity(asked, rows, view),
            )
            return ranked if leaves is None else _only(ranked, [allowed[row] for row in rows])

        width = num_beams or k
        ranked = search(np.arange(len(queries)), width)
        wanted = np.full(len(queries), min(k, width))
        for row in ranked.fewer_than(wanted):  # than there are, or because several identifiers led to one image
            mask = None if leaves is None else leaves[row]
            wanted[row] = min(wanted[row], searched.num_images(allowed[row], mask))
        while width < searched.trie.num_leaves and len(rows := ranked.fewer_than(wanted)):
            width *= 2
            ranked = ranked.replaced(rows, search(rows, width))
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

    def names(self, view: View, searched: ImageTrie | None, keys: Ints, leaves: Ints) -> list[list[str] | None]:
        if not len(keys):
            return []
        assert searched is not None
        rows = view.identifiers_of(keys)
        owned = zip(rows.image_keys.tolist(), self.spelt(rows), strict=True)
        place = {(key, bare(tokens)): row for row, (key, tokens) in enumerate(owned)}
        trie = searched.trie
        reached = trie.tokens_of(torch.from_numpy(leaves).to(trie.device)).cpu()
        found = [place[key, bare(tokens)] for key, tokens in zip(keys.tolist(), reached, strict=True)]
        if rows.codes is None:
            assert rows.texts is not None
            return [[rows.texts[row]] for row in found]
        name = self.identifier.vokens.name
        return [
            [name(level, code) for level, code in enumerate(row) if code >= 0] for row in rows.codes[found].tolist()
        ]


def _leaves(searched: ImageTrie, allowed: Sequence[Allowed]) -> list[NDArray[np.bool_]] | None:
    """The leaves (U,) that each query may reach, of equal restrictions the same object; None: all may reach all."""
    distinct = {id(one): one for one in allowed}
    if all(one.everything for one in distinct.values()):
        return None
    leaves = {name: searched.leaves_for(one) for name, one in distinct.items()}
    return [leaves[id(one)] for one in allowed]


def _only(ranked: Ranked, allowed: Sequence[Allowed]) -> Ranked:
    """Drops images that merely share an identifier with an allowed one."""
    keep = np.stack([one.among(row) for one, row in zip(allowed, ranked.images, strict=True)])
    order = np.argsort(~keep, axis=1, kind="stable")
    images = np.where(keep, ranked.images, -1)
    scores = np.where(keep, ranked.scores, -np.inf).astype(np.float32)
    return Ranked(*(np.take_along_axis(table, order, axis=1) for table in (images, scores, ranked.leaves)))
