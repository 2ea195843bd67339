"""What every retriever over a catalog shares: adding and removing images, text vectors, reranking, hits."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
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
from genret.catalog.store import NewImage, Snapshot
from genret.errors import GenretError, UsageError, one_line
from genret.kit.encode import text_vectors
from genret.kit.images import content_hash
from genret.search.batch import Resources
from genret.search.confidence import SIMILARITY_SIGNALS, Confidence, checked_threshold, similarity_signals
from genret.search.confidence import Floats as Floats64
from genret.search.ranking import Ints, Ranked, fuse_scores, reordered
from genret.search.restrict import Allowed, Restrictions
from genret.search.sync import Source, Sync, batches
from genret.search.trace import BeamTrace, Enlarged, Inspection


def run_id_of(run: Path) -> str:
    """What a run's catalog must carry: identifiers mean something only to the models that made them."""
    stages = sorted(run.glob("*/stage.json"))
    return content_hash(b"".join(stage.read_bytes() for stage in stages))[:20]


def load_towers(encoder: Encoder, folder: Path) -> None:
    """Gives the encoder the fine-tuned weights of a finished stage, which keep their name wherever they are copied."""
    try:
        facts = (folder / "stage.json").read_bytes()
    except OSError as error:
        raise GenretError(
            f"{folder} holds no fine-tuned towers ({one_line(error)}); make them anew with: genret train --run DIR "
            "--resume"
        ) from error
    encoder.load_towers(folder, content_hash(facts)[:20])


class CatalogRetriever(Retriever):
    """Finds images of a catalog, which it keeps; a subclass says how they are ranked.

    Two methods have to be there: `build_index`, what searching some images needs, and `candidates`, the best of them
    for some queries. The rest has defaults, for retrievers without identifiers.
    """

    confidence: Confidence | None = None
    """What tells a sure search from one that finds nothing of the kind; None where a run has not been calibrated."""
    signal_names: ClassVar[tuple[str, ...]] = SIMILARITY_SIGNALS
    """Of the numbers by which `signals` tells how sure a search is."""

    def __init__(self, config: Any = None, **resources: Any):
        super().__init__(config, **resources)
        self._opening = Lock()
        self._ready = False
        self._known: tuple[int, Any] | None = None

    def connect(self, resources: Resources) -> None:
        """From here on it searches this catalog with these parts."""
        self.catalog, self.thumbnails = resources.catalog, resources.thumbnails
        self.encoder, self.reranker = resources.encoder, resources.reranker
        self.options, self.device = resources.search, resources.device
        if self.reranker is not None:
            self.reranker.to(self.device)

    # ------------------------------------------------------------------------------------------- what subclasses say
    @abstractmethod
    def build_index(self, snapshot: Snapshot, keys: Ints) -> Any:
        """What searching these images needs (catalog keys (N,), ascending, at least one); None where none of them can
        be found. It is made anew for each version of the catalog."""

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
        """The first stage of a search for k: catalog keys of each query, best first, as many as a reranker may want
        (`depth`). `index`: what `build_index` returned. `allowed`: which keys each query may find
        (`allowed[row].among(keys)`)."""

    def index_at(self, snapshot: Snapshot) -> Any:
        """What is searched in this version of the catalog; one that is brought forward by changes overrides this."""
        if self._known is None or self._known[0] != snapshot.version:
            keys = snapshot.searchable_keys()
            self._known = snapshot.version, self.build_index(snapshot, keys) if len(keys) else None
        return self._known[1]

    def identifiers(self, features: Tensor, image_ids: Sequence[str]) -> list[list[bytes]]:
        """(n, D) image vectors → the packed identifiers of each image; empty lists for retrievers without any."""
        return [[] for _ in image_ids]

    def names(self, snapshot: Snapshot, index: Any, keys: Ints, leaves: Ints) -> list[list[str] | None]:
        """The symbols by which each image was reached; None for retrievers without identifiers."""
        return [None] * len(keys)

    @property
    def num_beams(self) -> int | None:
        """Beams of a search that names none; None for retrievers without beams."""
        return self.options.num_beams if self.has_beams else None

    @property
    def wants_vectors(self) -> bool:
        """Whether every search needs the vectors of its queries."""
        return self.reranker is not None

    # -------------------------------------------------------------------------------------- what it can tell besides
    def exact_ranks(self, index: Any, query_features: Tensor, keys: Ints) -> Ints | None:
        """(Q,) the rank from 1 of one image each, however deep it lies; None where only the first ones are known."""
        return None

    def trace(
        self, snapshot: Snapshot, index: Any, batch: QueryBatch, right: Ints, num_beams: int, progress: Progress
    ) -> BeamTrace:
        """What became of each query's right image (Q,) in a search of its own; of classes that say `has_trace`."""
        raise NotImplementedError("a retriever with a trace says how")

    def inspect(self, snapshot: Snapshot, index: Any, keys: Ints) -> Inspection:
        """What the identifiers of these images (N,) still say of them, and how well they tell them apart."""
        return Inspection()

    def signals(self, ranked: Ranked) -> Floats64:
        """(B, C) found → (B, F) numbers that tell how sure a search is; -inf in the first where nothing was found."""
        return similarity_signals(ranked)

    def enlarged(self, snapshot: Snapshot, num_images: int) -> Enlarged:
        """An index of this many images, made-up ones among them, to measure how long searches take."""
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
        for query in queries:
            if not query.strip():
                raise UsageError('the query is empty; say what the picture shows, e.g. "two dogs in the snow"')
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
                if index is None:
                    ranked = Ranked.nothing(len(batch))
                else:
                    ranked = self.candidates(snapshot, index, queries_now, k, beams, allowed)
                sure = self._confidence(ranked)
                if self.reranker is not None:
                    ranked = self.rerank(queries_now, ranked, k, snapshot)
                hits = self._hits(snapshot, index, ranked, k)
            elapsed = 1000 * (time.perf_counter() - began) / len(batch)
            for query, found, p in zip(batch, hits, sure, strict=True):
                kept = found if threshold is None or p >= threshold else []
                results.append(SearchResult(query, kept, beams, elapsed, p))
        return results

    @contextmanager
    def opened(self) -> Iterator[tuple[Snapshot, Any]]:
        """One version of the catalog and what is searched in it, whoever writes meanwhile."""
        with ExitStack() as held:
            with self._opening:  # versions are opened one after the other
                snapshot = held.enter_context(self.catalog.snapshot())
                index = self.index_at(snapshot)
            yield snapshot, index

    def prepare(self, query: str) -> None:
        """Loads what the first search would have to load, because its time is reported as the query's."""
        with self.opened():
            pass
        if self.reranker is not None:
            self.reranker.load()
        if self.wants_vectors:
            self.text_vectors([query])

    def depth(self, k: int) -> int:
        """How many images of the first stage matter to a search for k."""
        return k if self.reranker is None else max(k, self.reranker.config.candidates)

    def _confidence(self, ranked: Ranked) -> list[Any]:
        known = self.confidence
        return [None] * len(ranked.images) if known is None else known.of_signals(self.signals(ranked)).tolist()

    def rerank(self, batch: QueryBatch, ranked: Ranked, k: int, snapshot: Snapshot | None = None) -> Ranked:
        """The first `depth(k)` of each query's images, reordered by the reranker's scores; equal ones as they were."""
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
        """The run's own log p(query | image), where it has learnt one."""
        return None

    def _reader(self, keys: Ints, snapshot: Snapshot) -> Callable[[int], Image.Image]:
        """Opens the thumbnails of these images; their hashes are asked for together, and only if one is opened."""
        hashes: dict[int, str] = {}

        def read(key: int) -> Image.Image:
            if not hashes:
                distinct = np.unique(keys[keys >= 0])
                hashes.update(zip(distinct.tolist(), (row.sha256 for row in snapshot.lookup(distinct)), strict=True))
            return self.thumbnails.open(hashes[key])

        return read

    def _hits(self, snapshot: Snapshot, index: Any, ranked: Ranked, k: int) -> list[list[Hit]]:
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
                hits[-1].append(Hit(int(place) + 1, image.image_id, image.uri, score, name, image.metadata))
        return hits

    @property
    def text_vectors(self) -> Callable[[Sequence[str]], Tensor]:
        """Queries → (B, D) unit rows on the CPU."""
        return partial(text_vectors, self.encoder, self.device)

    # ------------------------------------------------------------------------------------------------ changing
    def index(self, images: Iterable[Source]) -> IndexReport:
        sync, report = Sync(self.catalog), IndexReport(0, 0, [])
        for batch in batches(sync.new(images)):
            with torch.no_grad():
                raw = self.encoder.image_features([item.image for item in batch])
                vectors = self.encoder.project_images(raw.to(self.device)).float().cpu()
            packed = self.identifiers(vectors, [item.record.image_id for item in batch])
            for item in batch:
                self.thumbnails.save(item.sha256, item.image)
            rows = [
                NewImage(item.record.image_id, item.record.uri, item.sha256, names, vector, item.record.metadata)
                for item, names, vector in zip(batch, packed, vectors, strict=True)
            ]
            left_out = self.catalog.add(rows).skipped
            kept = {row.uri for row in rows} - {one.path for one in left_out}
            updated = sum(item.replaces and item.record.uri in kept for item in batch)
            report = report.plus(IndexReport(len(kept) - updated, 0, left_out, updated))
        return report.plus(IndexReport(0, 0, sync.skipped, 0, sync.moved, sync.unchanged))

    def remove(self, image_ids: Sequence[str]) -> IndexReport:
        return self.catalog.remove(image_ids)
