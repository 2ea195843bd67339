"""The order of a training's stages, and the inputs of each."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from genret.errors import GenretError
from genret.train.artifacts import Artifact
from genret.train.copies import Pixels, TrainingSplits, copies
from genret.train.data import Listing, Split
from genret.train.pipeline import Pipeline

Images = TypeVar("Images", Listing, Split)


class Made(NamedTuple):
    """The parts that a run is made of."""

    artifacts: dict[str, Artifact]
    """By the folder in the run that each becomes"""
    searched: Split
    development: Split


def run_stages(pipeline: Pipeline) -> Made:
    """Makes or finds every stage that the recipe needs."""
    parts = pipeline.components
    dataset, encoder = parts.dataset, parts.encoder
    artifacts: dict[str, Artifact] = {}
    if encoder.finetunes:
        dev_files, test_files = pipeline.files(dataset.dev_split), pipeline.files(dataset.test_split)
        train_files = _without_files(pipeline.files(dataset.train_split), [dev_files, test_files])
        artifacts["towers"] = pipeline.towers(train_files, dev_files)
    with pipeline.timed("features"):
        whole = pipeline.read(dataset.train_split, views=encoder.num_views)
        others = (dataset.dev_split, dataset.test_split)
        dev, test = (whole if name == dataset.train_split else pipeline.read(name) for name in others)
    with pipeline.timed("copies"):
        pixels = {split.name: Pixels(split, pipeline.files(split.name)) for split in (whole, dev, test)}
        twins = {split.name: [] if split is whole else copies(whole, split, pixels) for split in (dev, test)}
        gone = {whole.hashes[one.row] for found in twins.values() for one in found}
        train = _some_left(whole, whole.without(gone))
    artifacts["encoder"] = heads = pipeline.heads(train, dev)
    remark = None
    if parts.identifier is not None or parts.retriever.learns:
        train_corpus, dev_corpus, searched = (pipeline.corpus(split) for split in (train, dev, test))
        if parts.texts is not None:
            train_corpus, dev_corpus = pipeline.taught(parts.texts, train_corpus, dev_corpus)
        corpora = pipeline.corpora(train_corpus, searched)
        remark = corpora.remark
    with pipeline.timed("leakage"):
        splits = TrainingSplits(
            train=whole, dev=dev, test=test, copies=twins, pixels=pixels, concepts=dataset.concepts, remark=remark
        )
        for evaluator in pipeline.evaluators:
            evaluator.before_training(pipeline.run, splits, pipeline.told(heads))
    if parts.identifier is not None:
        artifacts["identifier"] = identifier = pipeline.identifier(corpora, heads)
        targets = pipeline.targets(corpora.generator, dev_corpus, identifier, train, dev)
        artifacts["generator"] = pipeline.generator(corpora.generator, dev_corpus, targets)
    if parts.retriever.learns:
        artifacts["retriever"] = pipeline.retriever(corpora, heads)
    return Made(artifacts, test, dev)


def _without_files(train: Listing, searched: list[Listing]) -> Listing:
    """Towers are never trained on a file that is also searched. Pixels are compared later: that needs vectors."""
    return _some_left(train, train.without({content for split in searched for content in split.hashes}))


def _some_left(train: Images, kept: Images) -> Images:
    if train.records and not kept.records:
        raise GenretError("every training picture is also one that is searched; give train another split")
    return kept
