"""What every retriever over a catalog shares: adding and removing images, text vectors, reranking, hits."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genret.api import (
    Candidates,
    Encoder,
    Hit,
    IndexReport,
    Progress,
    QueryBatch,
    Restriction,
    Retriever,
    SearchResult,
)
from genret.catalog.store import Snapshot
from genret.errors import GenretError, UsageError, one_line
from genret.kit.arrays import Ints
from genret.kit.encode import text_vectors
from genret.kit.images import content_hash
from genret.search.confidence import SIMILARITY_SIGNALS, Confidence, Floats, checked_threshold, similarity_signals
from genret.search.ranking import Ranked, fuse_scores, reordered
from genret.search.resources import Resources
from genret.search.restrict import Allowed, Restrictions
from genret.search.sync import BATCH, WRITTEN, NewContent, Source, Sync, ahead
from genret.search.trace import BeamTrace, Enlarged, Inspection


def load_towers(encoder: Encoder, folder: Path) -> None:
    """Loads the fine-tuned weights of a finished stage into the encoder; their key is the same for all copies."""
    try:
        facts = (folder / "stage.json").read_bytes()
    except OSError as error:
        raise GenretError(
            f"{folder} holds no fine-tuned towers ({one_line(error)}); make them anew with: genret train --run DIR "
            "--resume"
        ) from error
    encoder.load_towers(folder, content_hash(facts)[:20])


class CatalogRetriever(Retriever):
    """A retriever that stores its images in a catalog; a subclass defines the ranking.

    Two methods are required: `build_index`, the data for searching some images, and `candidates`, the best of them for
    some queries. The rest has defaults, for retrievers without identifiers.
    """

    confidence: Confidence | None = None
    """Calibrated model of whether a search found something relevant; None if the run has not been calibrated."""
    signal_names: ClassVar[tuple[str, ...]] = SIMILARITY_SIGNALS
    """Names of the numbers that `signals` returns."""

    def __init__(self, config: Any = None, **resources: Any):
        super().__init__(config, **resources)
        self._opening = Lock()
        self._ready = False
        self._known: tuple[int, Any] | None = None

    def connect(self, resources: Resources) -> None:
        """Sets the catalog and the parts that it searches with."""
        self.catalog, self.thumbnails = resources.catalog, resources.thumbnails
        self.encoder, self.reranker = resources.encoder, resources.reranker
        self.options, self.device = resources.search, resources.device
        if self.reranker is not None:
            self.reranker.to(self.device)

    # ---------------------------------------------------------------------------------------- what subclasses implement
    @abstractmethod
    def build_index(self, snapshot: Snapshot, keys: Ints) -> Any:
        """The data for searching these images (catalog keys (N,), ascending, at least one); None if none of them can be
        found. It is rebuilt for each version of the catalog."""

    @abstractmethod
    def candidates(
        self,
        snapshot: Snapshot,
        index: Any,
        batch: QueryBatch,
        k: int,
        num_beams: int | None,
        allowed: Sequence[Allowed],
    ) -> Ranked:
        """The first stage of a search for k: catalog keys of each query, best first, as many as a reranker may need
        (`depth`). `index`: the result of `build_index`. `allowed`: which keys each query may find
        (`allowed[row].among(keys)`)."""

    def index_at(self, snapshot: Snapshot) -> Any:
        """The index of this version of the catalog; subclasses that update it incrementally override this."""
        if self._known is None or self._known[0] != snapshot.version:
            keys = snapshot.searchable_keys()
            self._known = snapshot.version, self.build_index(snapshot, keys) if len(keys) else None
        return self._known[1]

    def identifiers(self, features: Tensor, image_ids: Sequence[str]) -> list[list[bytes]]:
        """(n, D) image vectors → the packed identifiers of each image; empty lists for retrievers without any."""
        return [[] for _ in image_ids]

    def names(self, snapshot: Snapshot, index: Any, keys: Ints, leaves: Ints) -> list[list[str] | None]:
        """The codes by which each image was reached, of leaf -1 its first identifier; None without identifiers."""
        return [None] * len(keys)

    @property
    def num_beams(self) -> int | None:
        """Default beam width of a search; None for retrievers without beams."""
        return self.options.num_beams if self.has_beams else None

    @property
    def wants_vectors(self) -> bool:
        """Whether every search needs the vectors of its queries."""
        return self.reranker is not None

    # ---------------------------------------------------------------------------------------------------- optional
    def exact_ranks(self, index: Any, query_features: Tensor, keys: Ints) -> Ints | None:
        """(Q,) the rank, from 1, of one image per query, at any depth; None if only the first ones are known."""
        return None

    def trace(
        self, snapshot: Snapshot, index: Any, batch: QueryBatch, right: Ints, num_beams: int, progress: Progress
    ) -> BeamTrace:
        """What happened to the positive of each query (Q,) in a search; for classes with `has_trace`."""
        raise NotImplementedError("a retriever with has_trace must implement this")

    def explained(self, snapshot: Snapshot, index: Any, batch: QueryBatch, key: int, num_beams: int, k: int) -> Any:
        """`explain` for one query and the image `key`, among those of `index`; for classes with `has_explanation`."""
        raise NotImplementedError("a retriever with has_explanation must implement this")

    def inspect(self, snapshot: Snapshot, index: Any, keys: Ints) -> Inspection:
        """The vectors that the identifiers of these images (N,) represent, and how unique these identifiers are."""
        return Inspection()

    def drowned_out(self) -> CatalogRetriever | None:
        """The same search by the query's own vector alone; None where a language model does not search beside it."""
        return None

    def signals(self, ranked: Ranked) -> Floats:
        """(B, C) found → (B, F) numbers that indicate confidence; -inf in the first if nothing was found."""
        return similarity_signals(ranked)

    def enlarged(self, snapshot: Snapshot, num_images: int) -> Enlarged:
        """An index of this many images, synthetic ones included, to measure search times."""
        raise GenretError(f"images of a {type(self).__name__} cannot be made up")

    # ------------------------------------------------------------------------------------------------ searching
    def search(
        self,
        queries: Sequence[str],
        k: int = 10,
        *,
        num_beams: int | None = None,
        restrict: Restriction | Sequence[Restriction] = Restriction(),
        min_confidence: float | None = None,
    ) -> list[SearchResult]:
        if not all(query.strip() for query in queries):
            raise UsageError('the query is empty; say what the picture shows, e.g. "two dogs in the snow"')
        if k < 0:
            raise UsageError(f"k is how many images to find, from 0, not {k}")
        threshold = checked_threshold(min_confidence, self.confidence)
        beams = None if self.num_beams is None else max(num_beams or self.num_beams, k)
        restrictions = Restrictions(restrict, len(queries))
        results: list[SearchResult] = []
        if queries and not self._ready:
            self.prepare(queries[0])
            self._ready = True
        for start in range(0, len(queries), self.options.batch_size):
            batch = queries[start : start + self.options.batch_size]
            queries_now = QueryBatch(batch, self.text_vectors)
            began = time.perf_counter()
            with self.opened() as (snapshot, index):
                allowed = restrictions.resolved(snapshot, start, start + len(batch))
                wide = min(max(k, 1), max(1, snapshot.highest_key()))  # no catalog has more images
                if index is None:
                    ranked = Ranked.nothing(len(batch))
                else:
                    ranked = self.candidates(snapshot, index, queries_now, wide, beams, allowed)
                sure = self._confidence(ranked)
                if self.reranker is not None:
                    ranked = self.rerank(queries_now, ranked, wide, snapshot)
                hits = self.hits(snapshot, index, ranked, k)
                elapsed = 1000 * (time.perf_counter() - began) / len(batch)
                for query, found, p, may in zip(batch, hits, sure, allowed, strict=True):
                    one = SearchResult(query, found if threshold is None or p >= threshold else [], beams, elapsed, p)
                    results.append(self.amend(one, snapshot, may, k, threshold))
        return results

    @contextmanager
    def opened(self) -> Iterator[tuple[Snapshot, Any]]:
        """One version of the catalog and its index, unaffected by concurrent writes."""
        with ExitStack() as held:
            with self._opening:  # versions are opened one after the other
                snapshot = held.enter_context(self.catalog.snapshot())
                index = self.index_at(snapshot)
            yield snapshot, index

    def prepare(self, query: str) -> None:
        """Loads what the first search needs, because its time is reported as the query's."""
        with self.opened():
            pass
        if self.reranker is not None:
            self.reranker.load()
        if self.wants_vectors:
            self.text_vectors([query])

    def amend(self, one: SearchResult, seen: Snapshot, allowed: Allowed, k: int, least: float | None) -> SearchResult:
        """The answer to a query, with what is to be said of it; subclasses override this. least: `min_confidence`."""
        return one

    def depth(self, k: int) -> int:
        """Number of first-stage images that a search for k uses."""
        return k if self.reranker is None else max(k, self.reranker.config.candidates)

    def _confidence(self, ranked: Ranked) -> list[Any]:
        known = self.confidence
        return [None] * len(ranked.images) if known is None else known.of_signals(self.signals(ranked)).tolist()

    def rerank(self, batch: QueryBatch, ranked: Ranked, k: int, snapshot: Snapshot | None = None) -> Ranked:
        """The first `depth(k)` images of each query, reordered by the reranker's scores; ties keep their order."""
        assert self.reranker is not None
        snapshot = snapshot or self.catalog
        first = ranked.first(self.depth(k))
        vectors = snapshot.features_of(first.images.reshape(-1))
        candidates = Candidates(
            batch.texts,
            batch.vectors,
            torch.from_numpy(first.images),
            vectors.view(*first.images.shape, -1),
            torch.from_numpy(first.scores),
            self._reader(first.images, snapshot),
            self.caption_log_probs,
        )
        scores = self.reranker.score(candidates).float().cpu().numpy()
        scores = np.where(first.images < 0, -np.inf, scores).astype(np.float32)
        return reordered(first, fuse_scores(first.scores, scores, self.reranker.config.weight))

    @property
    def caption_log_probs(self) -> Callable[[Tensor, Sequence[str]], Tensor] | None:
        """The run's own log p(query | image), if its generator was trained to compute it."""
        return None

    def _reader(self, keys: Ints, snapshot: Snapshot) -> Callable[[int], Image.Image]:
        """Opens the thumbnails of these images; their hashes are read together, and only if one is opened."""
        hashes: dict[int, str] = {}

        def read(key: int) -> Image.Image:
            if not hashes:
                distinct = np.unique(keys[keys >= 0])
                hashes.update(zip(distinct.tolist(), (row.sha256 for row in snapshot.lookup(distinct)), strict=True))
            return self.thumbnails.open(hashes[key])

        return read

    def hits(self, snapshot: Snapshot, index: Any, ranked: Ranked, k: int) -> list[list[Hit]]:
        """The first k of each query, with all that people see of them."""
        images, leaves = ranked.images[:, :k], ranked.leaves[:, :k]
        there = images >= 0
        names = self.names(snapshot, index, images[there], leaves[there])
        rows = iter(zip(snapshot.lookup(images[there]), names, strict=True))
        hits: list[list[Hit]] = []
        for query in range(len(images)):
            hits.append([])
            for place in np.flatnonzero(there[query]):
                image, name = next(rows)
                score = float(ranked.scores[query, place])
                small = str(self.thumbnails.path(image.sha256))
                hits[-1].append(Hit(int(place) + 1, image.image_id, image.uri, score, name, image.metadata, small))
        return hits

    @property
    def text_vectors(self) -> Callable[[Sequence[str]], Tensor]:
        """Queries → (B, D) unit rows on the CPU."""
        return partial(text_vectors, self.encoder, self.device)

    # ------------------------------------------------------------------------------------------------ changing
    def index(self, images: Iterable[Source]) -> IndexReport:
        sync = Sync(self.catalog, self.thumbnails)
        encoded = ahead(self._encoded(sync.new(images)))
        while some := list(islice(encoded, WRITTEN)):
            new, vectors = [item for batch, _ in some for item in batch], torch.cat([vectors for _, vectors in some])
            sync.add(new, vectors, self.identifiers(vectors, [item.record.image_id for item in new]))
        return sync.report()

    @torch.no_grad()
    def _encoded(self, images: Iterator[NewContent]) -> Iterator[tuple[list[NewContent], Tensor]]:
        while batch := list(islice(images, BATCH)):
            raw = self.encoder.image_features([item.image for item in batch])
            yield batch, self.encoder.project_images(raw.to(self.device)).float().cpu()

    def remove(self, image_ids: Sequence[str]) -> IndexReport:
        return self.catalog.remove(image_ids)
