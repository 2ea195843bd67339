"""Copies the finished stages into the run directory and builds its catalog."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from genret.api import Bar, Corpus
from genret.catalog.place import FILE, has_catalog, place_of, run_id_of
from genret.catalog.store import Catalog, NewImage
from genret.errors import BadImage, GenretError
from genret.kit.files import place_stage
from genret.kit.images import decode_image
from genret.search.thumbnails import Thumbnails
from genret.search.tokenization import packed_by_image
from genret.train.data import Split, corpus_of
from genret.train.pipeline import Pipeline
from genret.train.stages import Made

CATALOG_CHUNK = 2048


def fill_run(pipeline: Pipeline, made: Made) -> None:
    """Copies the finished stages into the run directory and builds its catalog."""
    run = pipeline.run
    for name, artifact in made.artifacts.items():
        place_stage(artifact.folder, run / name)
    splits = (made.searched, made.development)
    with pipeline.timed("catalog"), pipeline.ui.progress("catalog", sum(len(one.records) for one in splits)) as bar:
        if not _keeps_catalog(pipeline):
            _make_catalog(pipeline, {one.name: one for one in splits}, bar)


def _keeps_catalog(pipeline: Pipeline) -> bool:
    """A resumed finished run keeps its catalog, and so the images that users added, if the catalog is usable."""
    run = pipeline.run
    catalog, aside = place_of(run), run / "catalog.unusable.sqlite"
    if not (run / "summary.json").exists() or not has_catalog(run):
        return False
    try:
        with Catalog.open(catalog, run_id_of(run), pipeline.registries.function.get("upgrade")) as there:
            there.image_count()
    except GenretError as error:
        if not isinstance(catalog, Path):  # a database that is down is only unavailable for now
            raise
        pipeline.ui.warn(f"the catalog is made anew; add your own pictures again ({error}; it is kept as {aside.name})")
        for suffix in ("", "-wal", "-shm"):
            if (part := catalog.with_name(catalog.name + suffix)).exists():
                part.replace(aside.with_name(aside.name + suffix))
        return False
    return True


def _make_catalog(pipeline: Pipeline, splits: dict[str, Split], bar: Bar) -> None:
    """The test split is searchable; the development split is stored for evaluation alone."""
    partial = pipeline.run / "catalog.partial.sqlite"
    for leftover in pipeline.run.glob(f"{partial.name}*"):
        leftover.unlink()
    searched = pipeline.components.dataset.test_split
    with Catalog.create(partial, run_id_of(pipeline.run)) as catalog:
        named = 0
        for name, split in splits.items():
            corpus = corpus_of(split, pipeline.components.encoder, pipeline.device)
            corpus = corpus.without_captions()._replace(named_before=named)
            named += len(split.records)
            images = _new_images(pipeline, split, corpus, name == searched)
            while chunk := list(islice(images, CATALOG_CHUNK)):
                catalog.add(chunk)
                bar.advance(len(chunk))
    for leftover in pipeline.run.glob("catalog.sqlite-*"):  # left by an interrupted run
        leftover.unlink()
    partial.replace(pipeline.run / FILE)


def _identifiers(pipeline: Pipeline, corpus: Corpus) -> list[list[bytes]]:
    """The packed identifiers of each image; none without identifiers, or if the scheme does not support new images."""
    identifier = pipeline.components.identifier
    none: list[list[bytes]] = [[] for _ in corpus.image_ids]
    if identifier is None:
        return none
    try:
        return packed_by_image(identifier.identify(corpus), len(corpus.image_ids))
    except GenretError:
        if identifier.new_images != "unsupported":
            raise
        return none


def _new_images(pipeline: Pipeline, split: Split, corpus: Corpus, searchable: bool) -> Iterator[NewImage]:
    parts, thumbnails = pipeline.components, Thumbnails(pipeline.run / "thumbnails")
    rows = zip(split.records, split.hashes, _identifiers(pipeline, corpus), corpus.features, strict=True)
    for record, sha256, names, vector in rows:
        if (searchable or parts.reranker is not None) and not thumbnails.has(sha256):
            try:
                thumbnails.save(sha256, decode_image(parts.dataset.read(record), record.uri))
            except BadImage as error:  # it could be read when its vector was computed
                pipeline.ui.warn(f"no thumbnail: {error}")
        about = record.metadata, split.name, searchable, record.captions
        yield NewImage(record.image_id, record.uri, sha256, names, vector, *about)
