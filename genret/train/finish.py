"""The last steps of a training: the run directory gets its parts, its catalog and its figures."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from genret.api import Corpus
from genret.catalog.place import FILE, has_catalog, place_of
from genret.catalog.store import Catalog, NewImage
from genret.errors import BadImage, GenretError
from genret.evaluate.evaluation import Evaluation
from genret.evaluate.run import evaluate
from genret.kit.files import lend, write_json
from genret.kit.images import decode_image
from genret.lab.confidence.confidence import calibrate
from genret.search.catalog import run_id_of
from genret.search.spelling import packed_by_image
from genret.search.thumbnails import Thumbnails
from genret.train.artifacts import Artifact
from genret.train.data import Split, corpus_of
from genret.train.environment import peak_memory_mb
from genret.train.pipeline import Pipeline

CATALOG_CHUNK = 2048


def finish_run(
    pipeline: Pipeline, artifacts: dict[str, Artifact], searched: Split, development: Split
) -> Evaluation | None:
    """Fills the run directory and measures the run on the split that it searches, if that has captions to search by."""
    run, recipe, ui = pipeline.run, pipeline.recipe, pipeline.ui
    for name, artifact in artifacts.items():
        lend(artifact.folder, run / name)
    with pipeline.timed("catalog"), ui.progress("catalog", len(searched.records) + len(development.records)) as bar:
        if not _keeps_catalog(pipeline):
            _make_catalog(pipeline, {searched.name: searched, development.name: development}, bar)
    found = None
    with pipeline.timed("confidence"):
        if calibrate(run, pipeline.registries, pipeline.settings, ui) is None:
            ui.note(f"confidence: the split '{development.name}' is too small or says nothing; searches go without one")
    if searched.captions:
        with pipeline.timed("evaluation"):
            found = evaluate(run, "test", [recipe.search.num_beams], pipeline.registries, pipeline.settings, ui)
    write_json(
        run / "environment.json",
        pipeline.environment | {"seconds": pipeline.seconds, "peak_memory_mb": peak_memory_mb()},
    )
    write_json(run / "summary.json", {"seconds": pipeline.seconds, "evaluation": found and found.as_json()})
    return found


def _keeps_catalog(pipeline: Pipeline) -> bool:
    """A finished run that is resumed keeps its catalog, and so the pictures that people added, if it can be used."""
    run = pipeline.run
    catalog, aside = place_of(run), run / "catalog.unusable.sqlite"
    if not (run / "summary.json").exists() or not has_catalog(run):
        return False
    try:
        with Catalog.open(catalog, run_id=run_id_of(run)) as there:
            there.image_count()
    except GenretError as error:
        if not isinstance(catalog, Path):  # a database that is down will be up again
            raise
        pipeline.ui.warn(f"the catalog is made anew; add your own pictures again ({error}; it is kept as {aside.name})")
        for suffix in ("", "-wal", "-shm"):
            if (part := catalog.with_name(catalog.name + suffix)).exists():
                part.replace(aside.with_name(aside.name + suffix))
        return False
    return True


def _make_catalog(pipeline: Pipeline, splits: dict[str, Split], bar: Any) -> None:
    """The searched split's images can be found; the development split's are there for evaluation alone."""
    partial = pipeline.run / "catalog.partial.sqlite"
    for leftover in pipeline.run.glob(f"{partial.name}*"):
        leftover.unlink()
    searched = pipeline.parts.dataset.test_split
    with Catalog.create(partial, run_id_of(pipeline.run)) as catalog:
        named = 0
        for name, split in splits.items():
            corpus = corpus_of(split, pipeline.parts.encoder, pipeline.device)
            corpus = corpus.without_captions()._replace(named_before=named)
            named += len(split.records)
            images = _new_images(pipeline, split, corpus, name == searched)
            while chunk := list(islice(images, CATALOG_CHUNK)):
                catalog.add(chunk)
                bar.advance(len(chunk))
    for leftover in pipeline.run.glob("catalog.sqlite-*"):  # of a catalog that an interrupted run left behind
        leftover.unlink()
    partial.replace(pipeline.run / FILE)


def _identifiers(pipeline: Pipeline, corpus: Corpus) -> list[list[bytes]]:
    """The packed identifiers of each image; none for two-tower, nor where the scheme refuses new images."""
    identifier = pipeline.parts.identifier
    none: list[list[bytes]] = [[] for _ in corpus.image_ids]
    if identifier is None or pipeline.recipe.retriever != "generative":
        return none
    try:
        return packed_by_image(identifier.identify(corpus), len(corpus.image_ids))
    except GenretError:
        if identifier.new_images != "refused":
            raise
        return none


def _new_images(pipeline: Pipeline, split: Split, corpus: Corpus, searchable: bool) -> Iterator[NewImage]:
    parts, thumbnails = pipeline.parts, Thumbnails(pipeline.run / "thumbnails")
    names = _identifiers(pipeline, corpus)
    for row, record in enumerate(split.records):
        if (searchable or parts.reranker is not None) and not thumbnails.has(split.hashes[row]):
            try:
                thumbnails.save(split.hashes[row], decode_image(parts.dataset.read(record), record.uri))
            except BadImage as error:  # it was there when its vector was made
                pipeline.ui.warn(f"no thumbnail: {error}")
        yield NewImage(
            record.image_id,
            record.uri,
            split.hashes[row],
            names[row],
            corpus.features[row],
            record.metadata,
            split.name,
            searchable,
            record.captions,
        )
