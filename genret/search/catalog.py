"""What every retriever over a catalog shares: adding and removing images, text vectors, reranking, hits."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genret.api import (
    Candidates,
    Encoder,
    Hit,
    IndexReport,
    Record,
    Reranker,
    Restriction,
    Retriever,
    SearchResult,
    Skipped,
)
from genret.catalog.place import place_of
from genret.catalog.store import Catalog, NewImage, View
from genret.errors import BadImage, GenretError, UsageError, one_line
from genret.kit.images import content_hash, decode_image
from genret.recipe.schema import SearchOptions
from genret.search.confidence import Confidence, checked_threshold, read_confidence
from genret.search.ranking import Floats, Ints, Ranked, mixed, reordered
from genret.search.restrict import Allowed, Restrictions
from genret.search.thumbnails import Thumbnails

INDEX_BATCH = 32
"""Images decoded and encoded at a time."""


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


class _Decoded(NamedTuple):
    record: Record
    sha256: str
    picture: Any


class Asked:
    """A batch of queries; their vectors are computed when somebody first wants them, once."""

    def __init__(self, texts: Sequence[str], embed: Callable[[Sequence[str]], Tensor]):
        self.texts = texts
        self._embed = embed

    @cached_property
    def vectors(self) -> Tensor:
        """(B, D) unit rows on the CPU"""
        return self._embed(self.texts)


class CatalogRetriever(Retriever):
    """Finds images of a catalog; subclasses say how candidates are found."""

    def __init__(
        self,
        catalog: Catalog,
        thumbnails: Thumbnails,
        encoder: Encoder,
        reranker: Reranker | None,
        options: SearchOptions,
        device: torch.device,
    ):
        self.catalog = catalog
        self.encoder = encoder
        self.reranker = reranker
        self.options = options
        self.device = device
        self.thumbnails = thumbnails
        self._opening = Lock()
        if reranker is not None:
            reranker.to(device)

    _ready = False
    confidence: Confidence | None = None
    """What tells a sure search from one that finds nothing of the kind; None where a run has not been calibrated."""

    @abstractmethod
    def searched(self, view: View) -> Any:
        """What is searched in this version of the catalog, brought forward from the last one that was asked for."""

    @abstractmethod
    def candidates(
        self,
        view: View,
        searched: Any,
        asked: Asked,
        k: int,
        num_beams: int | None,
        allowed: Sequence[Allowed],
    ) -> Ranked:
        """The first stage of a search for k: catalog keys of each query, best first, as many as a reranker may want
        (`depth`). `allowed`: which keys each query may find."""

    @abstractmethod
    def identifiers(self, features: Tensor, image_ids: Sequence[str]) -> list[list[bytes]]:
        """(n, D) image vectors → the packed identifiers of each image; empty lists for retrievers without any."""

    @abstractmethod
    def names(self, view: View, searched: Any, keys: Ints, leaves: Ints) -> list[list[str] | None]:
        """The symbols by which each image was reached; None for dense retrievers."""

    @property
    def num_beams(self) -> int | None:
        """Beams of a search that names none; None for dense retrievers."""
        return None

    @property
    def wants_vectors(self) -> bool:
        """Whether every search needs the vectors of its queries."""
        return self.reranker is not None

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
            asked = Asked(batch, self.text_vectors)
            began = time.perf_counter()
            with self.opened() as (view, searched):
                allowed = restrictions.resolved(view, start, start + len(batch))
                ranked = self.candidates(view, searched, asked, k, beams, allowed)
                sure: list[Any] = self.confidence.of(ranked).tolist() if self.confidence else [None] * len(batch)
                if self.reranker is not None:
                    ranked = self.rerank(batch, asked.vectors, ranked, k, view)
                hits = self._hits(view, searched, ranked, k)
            elapsed = 1000 * (time.perf_counter() - began) / len(batch)
            for query, found, p in zip(batch, hits, sure, strict=True):
                kept = found if threshold is None or p >= threshold else []
                results.append(SearchResult(query, kept, beams, elapsed, p))
        return results

    @contextmanager
    def opened(self) -> Iterator[tuple[View, Any]]:
        """One version of the catalog and what is searched in it, whoever writes meanwhile."""
        with ExitStack() as held:
            with self._opening:  # versions are opened one after the other
                view = held.enter_context(self.catalog.snapshot())
                searched = self.searched(view)
            yield view, searched

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

    def rerank(
        self, queries: Sequence[str], query_features: Tensor, ranked: Ranked, k: int, view: View | None = None
    ) -> Ranked:
        """The first `depth(k)` of each query's images, reordered by the reranker's scores; equal ones as they were."""
        assert self.reranker is not None
        view = view or self.catalog
        first = ranked.first(self.depth(k))
        vectors = view.features_of(first.images.reshape(-1))
        candidates = Candidates(
            queries,
            query_features,
            torch.from_numpy(first.images),
            vectors.view(*first.images.shape, -1),
            torch.from_numpy(first.scores),
            self._reader(first.images, view),
            self.caption_log_probs,
        )
        scores = self.reranker.score(candidates).float().cpu().numpy()
        scores = np.where(first.images < 0, -np.inf, scores).astype(np.float32)
        return reordered(first, mixed(first.scores, scores, self.reranker.config.weight))

    @property
    def caption_log_probs(self) -> Callable[[Tensor, Sequence[str]], Tensor] | None:
        """The run's own log p(query | image), where it has learnt one."""
        return None

    def _reader(self, keys: Ints, view: View) -> Callable[[int], Image.Image]:
        """Opens the thumbnails of these images; their hashes are asked for together, and only if one is opened."""
        hashes: dict[int, str] = {}

        def read(key: int) -> Image.Image:
            if not hashes:
                distinct = np.unique(keys[keys >= 0])
                hashes.update(zip(distinct.tolist(), (row.sha256 for row in view.lookup(distinct)), strict=True))
            return self.thumbnails.open(hashes[key])

        return read

    def _hits(self, view: View, searched: Any, ranked: Ranked, k: int) -> list[list[Hit]]:
        images, leaves = ranked.images[:, :k], ranked.leaves[:, :k]
        there = images >= 0
        names = self.names(view, searched, images[there], leaves[there])
        rows = iter(zip(view.lookup(images[there]), names, strict=True))
        hits: list[list[Hit]] = []
        for query in range(len(images)):
            hits.append([])
            for place in np.flatnonzero(there[query]):
                image, name = next(rows)
                score = float(ranked.scores[query, place])
                hits[-1].append(Hit(int(place) + 1, image.image_id, image.uri, score, name, image.metadata))
        return hits

    def text_vectors(self, queries: Sequence[str]) -> Tensor:
        """Queries → (B, D) unit rows on the CPU."""
        with torch.no_grad():
            return self.encoder.project_texts(self.encoder.text_features(queries).to(self.device)).float().cpu()

    def similarity(self, asked: Asked, rows: Ints, view: View) -> Callable[[Ints, Ints], Floats]:
        """How ties between images of some of the queries, `rows`, are ordered: by the dense similarity of the stored
        vectors."""

        def of(query: Ints, key: Ints) -> Floats:
            images = view.features_of(key)
            result: Floats = (asked.vectors[torch.from_numpy(rows[query])] * images).sum(-1).numpy()
            return result

        return of

    # ------------------------------------------------------------------------------------------------ changing
    def index(self, images: Iterable[tuple[Record, Callable[[], bytes]]]) -> IndexReport:
        added, skipped = 0, list[Skipped]()
        decoded = self._decoded(images, skipped)
        while batch := list(islice(decoded, INDEX_BATCH)):
            with torch.no_grad():
                raw = self.encoder.image_features([item.picture for item in batch])
                vectors = self.encoder.project_images(raw.to(self.device)).float().cpu()
            packed = self.identifiers(vectors, [item.record.image_id for item in batch])
            for item in batch:
                self.thumbnails.save(item.sha256, item.picture)
            report = self.catalog.add(
                [
                    NewImage(item.record.image_id, item.record.uri, item.sha256, names, vector, item.record.metadata)
                    for item, names, vector in zip(batch, packed, vectors, strict=True)
                ]
            )
            added += report.added
            skipped += report.skipped
        return IndexReport(added, 0, skipped)

    def _decoded(
        self, images: Iterable[tuple[Record, Callable[[], bytes]]], skipped: list[Skipped]
    ) -> Iterator[_Decoded]:
        for record, read in images:
            try:
                data = read()
                yield _Decoded(record, content_hash(data), decode_image(data, record.uri))
            except (BadImage, OSError) as error:
                skipped.append(Skipped(record.uri, str(error)))

    def remove(self, image_ids: Sequence[str]) -> IndexReport:
        return self.catalog.remove(image_ids)

    @classmethod
    def load(cls, folder: Path, **parts: Any) -> CatalogRetriever:
        """Opens a run directory. `parts`: what else the constructor takes, its components not yet loaded."""
        device, encoder = parts["device"], parts["encoder"]
        if encoder.finetunes:
            load_towers(encoder, folder / "towers")
        encoder.load(folder / "encoder")
        encoder.to(device)
        catalog = Catalog.open(place_of(folder), run_id=run_id_of(folder))
        retriever = cls(catalog, thumbnails=Thumbnails(folder / "thumbnails"), **parts)
        retriever.confidence = read_confidence(folder)
        return retriever

    def save(self, folder: Path) -> None:
        """A catalog retriever lives in its run directory; every change is already on disk."""
        if self.thumbnails.folder.parent.resolve() != folder.resolve():
            raise GenretError(f"{folder} is not this run's directory; copy the whole run directory instead")
