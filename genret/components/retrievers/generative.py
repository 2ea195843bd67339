"""Generative retrieval: a language model generates identifiers, constrained by the catalog's trie (paper 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genret.api import Backbone, Corpus, Identifier, Progress, QueryBatch, SearchResult
from genret.catalog.store import IdentifierRows, Snapshot
from genret.components.retrievers import enlarged, explain, signals, trace
from genret.components.retrievers.by_name import by_name
from genret.components.retrievers.ceiling import ceiling_of
from genret.components.retrievers.explanation import Explanation
from genret.components.retrievers.guidance.terms import Guidance
from genret.components.retrievers.live_trie import LiveTrie
from genret.components.retrievers.restricted import fewer_than, leaves_for_each, num_images, only_allowed
from genret.components.retrievers.spelling import as_identifiers, by_image, strip_padding, symbols, tokenization_key
from genret.components.retrievers.trie_cache import TrieCache
from genret.decode.beam import Beams, beam_search
from genret.decode.leaf_sets import LeafSets
from genret.decode.trie import Trie
from genret.kit.arrays import Floats as Floats32
from genret.kit.arrays import Ints
from genret.kit.images import content_hash
from genret.search.catalog import CatalogRetriever
from genret.search.confidence import Floats
from genret.search.image_trie import ImageTrie
from genret.search.ranking import Ranked, dense_similarity, rank_images
from genret.search.resources import Resources
from genret.search.restrict import Allowed
from genret.search.tokenization import packed_by_image, tokenize_identifiers
from genret.search.trace import BeamTrace, Enlarged, Inspection
from genret.toolbox.codes.usage import usage_statistics
from genret.toolbox.cores import num_parts, side_by_side


class GenerativeRetriever(CatalogRetriever):
    """A language model generates identifiers, constrained by a trie: AVG, GRACE, IRGen and others."""

    needs = ("identifier", "backbone", "loss")
    has_beams = True
    has_trace = True
    has_explanation = True
    signal_names = signals.NAMES
    identifier: Identifier
    backbone: Backbone

    def connect(self, resources: Resources) -> None:
        super().connect(resources)
        assert resources.identifier is not None and resources.backbone is not None, "the recipe names both"
        self.identifier, self.backbone = resources.identifier, resources.backbone
        self.written_levels, self.end_symbol = resources.train.written_levels, resources.train.end_symbol
        # identifiers are tokenized by this run's models, so each run and catalog has its own cache
        spelling = tokenization_key(self.backbone, self.identifier.vokens, self.end_symbol)
        key = content_hash(f"{self.catalog.uid} {self.catalog.run_id} {spelling}".encode())[:20]
        self.cache_folder = None if resources.folder is None else resources.folder / "trie"
        cache = None if self.cache_folder is None else TrieCache(self.cache_folder, key, self.backbone.vocab_size)
        self._live = LiveTrie(self.tokenized, self.device, cache)
        self.guidance = Guidance(self)

    def tokenized(self, rows: IdentifierRows) -> Tensor:
        """R rows of the catalog → (R, L) tokens, -1 after the end."""
        return tokenize_identifiers(self.backbone, as_identifiers(rows), self.end_symbol)

    # ------------------------------------------------------------------------------------------------------ guidance
    @property
    def guided(self) -> bool:
        """Whether the beam search needs the queries' vectors."""
        return self.options.guidance > 0

    def amend(self, one: SearchResult, seen: Snapshot, allowed: Allowed, k: int, least: float | None) -> SearchResult:
        can_read = self.backbone.reads(one.query) or (self.guided and self.encoder.reads(one.query))
        return one if can_read else by_name(seen, one, allowed, k, least)

    @property
    def wants_vectors(self) -> bool:
        return self.guided or super().wants_vectors

    @torch.no_grad()
    def beams(
        self, batch: QueryBatch, trie: Trie, num_beams: int, allowed: LeafSets | None = None, observe: Any = None
    ) -> Beams:
        """The recipe's beam search in `trie`."""
        state, guide = self.guidance.begin(batch, trie, allowed)
        options = (self.options.score, (), allowed, guide, self.written_levels, observe, state)
        return beam_search(self.backbone, batch.texts, trie, num_beams, *options)

    # ----------------------------------------------------------------------------------------------------- searching
    def similarity(self, batch: QueryBatch, rows: Ints, snapshot: Snapshot) -> Callable[[Ints, Ints], Floats32]:
        """How ties between images of some of the queries, `rows`, are ordered."""
        return partial(dense_similarity, batch, rows, snapshot)

    def build_index(self, snapshot: Snapshot, keys: Ints) -> ImageTrie | None:
        rows = snapshot.identifiers_of(keys)
        if not len(rows.image_keys):
            return None
        return ImageTrie.build(self.tokenized(rows), rows.image_keys).to(self.device)

    def index_at(self, snapshot: Snapshot) -> ImageTrie | None:
        return self._live.at(snapshot)

    def candidates(
        self,
        snapshot: Snapshot,
        index: ImageTrie,
        batch: QueryBatch,
        k: int,
        num_beams: int | None,
        allowed: Sequence[Allowed],
    ) -> Ranked:
        leaves = leaves_for_each(index, allowed)

        def beams_of(rows: Ints, width: int) -> Beams:
            there = None if leaves is None else LeafSets.of([leaves[row] for row in rows])
            some = QueryBatch([batch.texts[row] for row in rows], lambda _: batch.vectors_of(rows))
            return self.beams(some, index.trie, width, there)

        def search(rows: Ints, width: int) -> Ranked:
            parts = np.array_split(rows, num_parts(len(rows), self.device) if self.backbone.is_concurrent else 1)
            found = side_by_side(partial(beams_of, width=width), parts)
            reached = torch.cat([beams.leaves for beams in found]).cpu().numpy()
            scores = torch.cat([beams.scores for beams in found]).cpu().numpy()
            ranked = rank_images(reached, scores, index.leaf_images, self.similarity(batch, rows, snapshot))
            return ranked if leaves is None else only_allowed(ranked, [allowed[row] for row in rows])

        if self.guided:
            _ = batch.vectors  # once, before its parts need them
        width = num_beams or k
        ranked = search(np.arange(len(batch)), width)
        wanted = np.full(len(batch), min(k, width))
        for row in fewer_than(ranked, wanted):  # there are fewer, or several identifiers led to one
            mask = None if leaves is None else leaves[row]
            wanted[row] = min(wanted[row], num_images(index, allowed[row], mask))
        while width < index.trie.num_leaves and len(rows := fewer_than(ranked, wanted)):
            width *= 2
            ranked = ranked.replaced(rows, search(rows, width))
        return ranked

    def names(self, snapshot: Snapshot, index: ImageTrie | None, keys: Ints, leaves: Ints) -> list[list[str] | None]:
        if not len(keys):
            return []
        assert index is not None
        rows = snapshot.identifiers_of(np.unique(keys))
        owned = zip(rows.image_keys.tolist(), self.tokenized(rows), strict=True)
        place = {(key, strip_padding(tokens)): row for row, (key, tokens) in enumerate(owned)}
        first = np.searchsorted(rows.image_keys, keys)  # for images that no beam has reached
        reached = index.trie.tokens_of(torch.from_numpy(leaves.clip(0)).to(index.trie.device)).cpu()
        found = [
            row if leaf < 0 else place[key, strip_padding(tokens)]
            for key, leaf, row, tokens in zip(keys.tolist(), leaves, first.tolist(), reached, strict=True)
        ]
        return symbols(rows, found, self.identifier.vokens.name)

    # ------------------------------------------------------------------------------------------------------ indexing
    def identifiers(self, features: Tensor, image_ids: Sequence[str]) -> list[list[bytes]]:
        if self.identifier.new_images == "assigned":
            # one by one, so that an image's identifier does not depend on the batch it comes in
            places = zip(image_ids, features[:, None], self._places(image_ids), strict=True)
            parts = (self.identifier.identify(Corpus([name], row, named_before=place)) for name, row, place in places)
            return [packed for part in parts for packed in packed_by_image(part, 1)]
        taken = None
        if self.identifier.avoids_collisions:
            taken = by_image(self.catalog.read_identifiers(searchable=True))[1].codes
        corpus = Corpus(image_ids, features, taken=taken)
        return packed_by_image(self.identifier.identify(corpus), len(image_ids))

    def _places(self, image_ids: Sequence[str]) -> list[int]:
        """How many images were added to the catalog before each: its key, or its future key, minus one."""
        keys = self.catalog.keys_of(image_ids).tolist()
        new = dict.fromkeys(image_id for image_id, key in zip(image_ids, keys, strict=True) if key < 0)
        place = {image_id: self.catalog.highest_key() + i for i, image_id in enumerate(new)}
        return [place[image_id] if key < 0 else key - 1 for image_id, key in zip(image_ids, keys, strict=True)]

    # ------------------------------------------------------------------------------------------ further outputs
    def trace(
        self, snapshot: Snapshot, index: ImageTrie, batch: QueryBatch, right: Ints, num_beams: int, progress: Progress
    ) -> BeamTrace:
        return trace.trace(self, snapshot, index, batch, right, num_beams, progress)

    def explain(
        self, query: str, image_id: str | None = None, *, num_beams: int | None = None, k: int = 10
    ) -> Explanation:
        return explain.explain(self, query, image_id, max(num_beams or self.options.num_beams, k), k)

    def explained(self, snapshot: Snapshot, index: Any, batch: QueryBatch, key: int, num_beams: int, k: int) -> Any:
        return explain.explain_in(self, snapshot, index, batch, key, num_beams, k)

    def inspect(self, snapshot: Snapshot, index: ImageTrie | None, keys: Ints) -> Inspection:
        content_based = self.identifier.new_images == "content_based"
        images, identifiers = by_image(snapshot.identifiers_of(keys))
        if index is None or not len(images):
            return Inspection(content_based=content_based)
        ceiling = None
        if identifiers.codes is not None and len(images) == len(keys):  # of several identifiers of an image, the first
            rows = torch.arange(len(identifiers.owners))
            first = torch.full((len(keys),), len(rows)).scatter_reduce(0, identifiers.owners, rows, "amin")
            features = snapshot.features_of(keys)
            own, length_weight = identifiers.codes[first], self.options.length_weight
            ceiling = ceiling_of(self.identifier, own, features, self.guided, length_weight)
        buckets = index.leaf_images.sizes(np.arange(index.trie.num_leaves))
        sizes = self.identifier.vokens.sizes
        levels = [] if identifiers.codes is None else usage_statistics(identifiers.codes, sizes)
        statistics = {
            "unique_rate": float((buckets == 1).sum() / max(1, buckets.sum())),
            "max_bucket": int(buckets.max(initial=0)),
            "perplexity": [round(level.perplexity, 2) for level in levels],
        }
        left, embed = (None, None) if ceiling is None else ceiling
        return Inspection(left, embed, statistics, content_based)

    def drowned_out(self) -> GenerativeRetriever | None:
        """As the search is in the limit of γ → ∞: the language model writes nothing."""
        if not self.guided:
            return None
        other = copy(self)
        other.written_levels = 0
        other.guidance = Guidance(other)
        return other

    def signals(self, ranked: Ranked) -> Floats:
        return signals.beam_signals(ranked)

    def enlarged(self, snapshot: Snapshot, num_images: int) -> Enlarged:
        return enlarged.trie(self, snapshot, num_images)

    @property
    def caption_log_probs(self) -> Callable[[Tensor, Sequence[str]], Tensor] | None:
        if not self.backbone.reads_features:
            return None
        return lambda features, captions: self.backbone.caption_log_probs(features.to(self.device), captions)
