"""The stages of a training, each an artifact: finished ones are reused, interrupted ones continue.

Defines the inputs and the key of each stage; the work of a stage is done by its component.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genret.api import Component, Corpus, Dataset, Evaluator, FitContext, Identifiers, Silent, Ui
from genret.decode.trie import Trie
from genret.errors import GenretError
from genret.kit.device import device_of
from genret.kit.files import append_row, write_json
from genret.plugin.code import code_keys, tower_key
from genret.plugin.registry import Registries
from genret.recipe.components import Components, components
from genret.recipe.schema import Recipe
from genret.search.catalog import load_towers
from genret.search.image_trie import index_trie
from genret.search.tokenization import tokenize_identifiers
from genret.settings import Settings
from genret.train.artifacts import Artifact, Artifacts, content_key
from genret.train.data import Listing, Split, corpus_of, list_split, read_split, text_vectors
from genret.train.generator import Development, Examples, fit_generator
from genret.train.image_examples import needs_features
from genret.train.protocols import SENTENCES, TrainingCorpora, taught_by, training_corpora
from genret.train.targets import Targets, make_targets
from genret.train.teacher import Teacher


class Pipeline:
    """One run's stages, in order, with their folders and durations."""

    def __init__(self, recipe: Recipe, run: Path, registries: Registries, settings: Settings, ui: Ui):
        self.recipe, self.run, self.registries, self.settings, self.ui = recipe, run, registries, settings, ui
        self.components: Components = components(recipe, registries)
        self.device = device_of(settings)
        self.plain = recipe.canonical()
        self.store = Artifacts(settings.artifacts_dir)
        self.seconds: dict[str, float] = {}
        self.evaluators: Sequence[Evaluator] = ()
        """Called with the results between the stages."""
        self.log: Callable[[dict[str, Any]], None] = partial(append_row, run / "metrics.jsonl")
        self._files: dict[str, Listing] = {}
        self.components.encoder.to(self.device)
        describe, provenance = (registries.function.get(name) for name in ("environment", "provenance"))
        origins = provenance(recipe, registries)
        packages = [source.partition(" ")[0] for source in origins["plugins"].values()]
        self.environment: dict[str, Any] = describe(self.device, recipe.train.seed, packages) | origins
        self.environment["code"] = self.components.code

    # ------------------------------------------------------------------------------------------------ stages
    def files(self, split: str) -> Listing:
        if split not in self._files:
            self._files[split] = list_split(self.components.dataset, split)
        return self._files[split]

    def towers(self, train: Listing, dev: Listing) -> Artifact:
        """Fine-tunes the encoder's towers; from then on the encoder has these weights."""
        encoder = self.components.encoder

        def make(folder: Path, checkpoints: Path) -> None:
            encoder.fit_towers(train.pictures, dev.pictures, self.context(checkpoints))
            encoder.save_towers(folder)

        pretrained = [tower_key(encoder, "image"), tower_key(encoder, "text")]
        encoder_options = self.plain["encoder"]
        options = {"finetune": encoder_options.get("finetune", encoder_options)}
        inputs = [train.key, dev.key, *pretrained]
        return self.stage("towers", options, inputs, make, lambda folder: load_towers(encoder, folder), [encoder])

    def read(self, split: str, views: int = 1) -> Split:
        found = read_split(
            self.files(split), self.components.encoder, views, self.settings.features_dir, self.ui.progress
        )
        for item in found.skipped[:5]:
            self.ui.warn(f"left out {item.path}: {item.reason}")
        if len(found.skipped) > 5:
            self.ui.warn(f"... and {len(found.skipped) - 5} more of split '{split}' were left out")
        if (bare := found.num_captionless) and self.components.texts is None:
            learnt = split == self.components.dataset.train_split
            used = "only an identifier model learns from them" if learnt else "no query asks for them"
            self.ui.note(f"{bare:,} of {len(found.records):,} pictures of split '{split}' have no caption: {used}")
        return found

    def heads(self, train: Split, dev: Split) -> Artifact:
        """The encoder's trained heads (none for encoders that come with a joint space)."""
        encoder = self.components.encoder

        def make(folder: Path, checkpoints: Path) -> None:
            encoder.fit(train.pairs, dev.pairs, self.context(checkpoints))
            encoder.save(folder)

        towers = [tower_key(encoder, "image"), tower_key(encoder, "text")]
        options, inputs = {"encoder": self.plain["encoder"]}, [train.key, dev.key, *towers]
        artifact = self.stage("encoder", options, inputs, make, encoder.load, [encoder])
        encoder.to(self.device)
        return artifact

    def taught(self, source: Dataset, train: Corpus, dev: Corpus) -> tuple[Corpus, Corpus]:
        """Sentences in place of captions; for development held-out ones, kept in the run, unless it has captions."""
        if not dev.captions:
            dev = taught_by(source, source.dev_split, dev, self._encode)
            write_json(self.run / SENTENCES, dev.captions)
        return taught_by(source, source.train_split, train, self._encode), dev

    def _encode(self, texts: Sequence[str]) -> torch.Tensor:
        return text_vectors(self.components.encoder, texts, self.settings.features_dir, self.device, self.ui.progress)

    def corpora(self, train: Corpus, searched: Corpus) -> TrainingCorpora:
        """The data that the protocol allows the two models to be trained on."""

        found = training_corpora(self.recipe.protocol, self.recipe.pseudo_queries, train, searched, self._encode)
        if self.components.texts is not None:
            found = found._replace(key=content_key(found.key, list(train.captions)))
        if found.remark is not None:
            self.ui.note(found.remark)
        return found

    def identifier(self, corpora: TrainingCorpora, heads: Artifact) -> Artifact:
        """The identifier model (paper 3.1)."""
        identifier, losses = self.components.identifier, self.components.losses_of("tokenizer")
        assert identifier is not None

        def make(folder: Path, checkpoints: Path) -> None:
            identifier.fit(corpora.tokenizer, losses, self.context(checkpoints))
            identifier.save(folder)

        options = {"identifier": self.plain["identifier"], "loss": {name: self.plain["loss"][name] for name in losses}}
        by = [identifier, *losses.values()]
        return self.stage("identifier", options, [heads.key, corpora.key], make, identifier.load, by)

    def targets(self, train: Corpus, dev: Corpus, model: Artifact, train_split: Split, dev_split: Split) -> Artifact:
        """The training targets of the captions."""
        identifier = self.components.identifier
        assert identifier is not None

        def make(folder: Path, checkpoints: Path) -> None:
            make_targets(train, identifier, self.recipe.train).save(folder)

        words = ("target_noise", "target_samples", "target_views", "dense_targets", "dense_temperature", "seed")
        options = {word: self.plain["train"][word] for word in words}
        inputs = [model.key, train_split.key, dev_split.key]
        artifact = self.stage("targets", options, inputs, make, Targets.load, [identifier])
        named = Targets.load(artifact.folder).own
        for evaluator in self.evaluators:
            evaluator.after_identifiers(self.run, identifier, named, dev, self.told(artifact))
        return artifact

    def generator(self, train: Corpus, dev: Corpus, targets_artifact: Artifact) -> Artifact:
        """The language model that writes identifiers (paper 3.2)."""
        identifier, backbone, recipe = self.components.identifier, self.components.backbone, self.recipe
        assert identifier is not None and backbone is not None
        targets = Targets.load(targets_artifact.folder)

        def make(folder: Path, checkpoints: Path) -> None:
            losses = self.components.losses_of("generator")
            features = train.features if needs_features(losses.values()) else None
            width = 0 if features is None else features.shape[1]
            backbone.build(identifier.vokens, identifier.code_vectors(), train.captions, recipe.train.seed, width)
            backbone.module.to(self.device)
            end, written = recipe.train.end_symbol, recipe.train.written_levels
            tokens = tokenize_identifiers(backbone, targets.identifiers, end)[:, :written]
            trie = Trie.build(tokenize_identifiers(backbone, targets.own, end)[:, :written]).to(self.device)
            examples = Examples(train.captions, targets, tokens, trie, self._teacher(train), features)
            content_based = identifier.new_images == "content_based"
            named = identifier.identify(dev.without_captions()) if content_based else None
            development = self._development(dev, named)
            train_options = (
                recipe.train if identifier.has_teacher else recipe.train.model_copy(update={"teacher_targets": 0.0})
            )
            context = self.context(checkpoints)
            fit_generator(backbone, examples, losses, train_options, development, context)
            backbone.save(folder)

        options = {word: self.plain[word] for word in ("backbone", "train")}
        options["loss"] = {name: self.plain["loss"][name] for name in self.components.losses_of("generator")}
        load = partial(backbone.load, vokens=identifier.vokens)
        by = [backbone, *self.components.losses_of("generator").values()]
        artifact = self.stage("generator", options, [targets_artifact.key], make, load, by)
        backbone.module.to(self.device)
        return artifact

    def retriever(self, corpora: TrainingCorpora, heads: Artifact) -> Artifact:
        """The part that a retriever learns itself."""
        retriever = self.components.retriever

        def make(folder: Path, checkpoints: Path) -> None:
            retriever.fit(corpora.generator, self.context(checkpoints))
            retriever.save(folder)

        options = {"retriever": self.plain["retriever"]}
        return self.stage("retriever", options, [heads.key, corpora.key], make, retriever.load, [retriever])

    def _teacher(self, train: Corpus) -> Teacher | None:
        identifier, backbone, options = self.components.identifier, self.components.backbone, self.recipe.train
        if identifier is None or not identifier.has_teacher:
            return None
        wanted = options.teacher_targets > 0 or any(
            loss.needs_teacher for loss in self.components.losses_of("generator").values()
        )
        if not wanted:
            return None
        assert backbone is not None and train.text_features is not None
        return Teacher(identifier, backbone, train.text_features, options.teacher_temperature, options.written_levels)

    def _development(self, dev: Corpus, identifiers: Identifiers | None) -> Development | None:
        """A fixed sample of development captions, searched among all development images."""
        if identifiers is None or dev.owners is None or not dev.captions:
            return None
        backbone, recipe = self.components.backbone, self.recipe
        assert backbone is not None
        index = index_trie(backbone, identifiers, np.arange(len(dev.features)), recipe.train.end_symbol)
        order = torch.randperm(len(dev.captions), generator=torch.Generator().manual_seed(recipe.train.seed))
        chosen = order[: recipe.train.dev_queries].tolist()
        relevant = dev.owners[torch.tensor(chosen)].numpy()
        return Development([dev.captions[row] for row in chosen], relevant, index.trie, index.leaf_images)

    # ------------------------------------------------------------------------------------------------ help for stages
    def stage(
        self,
        name: str,
        options: dict[str, Any],
        inputs: list[str],
        make: Callable[[Path, Path], None],
        load: Callable[[Path], Any],
        by: Iterable[Component],
    ) -> Artifact:
        """Makes or finds the artifact and loads it; an unusable one is made anew. `by`: whose code counts."""
        options = options | {"seed": self.recipe.train.seed, "device": self.device.type}
        if code := code_keys(by):
            options["code"] = code
        artifact = self.store.stage(name, options, inputs, make)
        try:
            load(artifact.folder)
        except GenretError as error:
            if not artifact.reused:
                raise
            self.ui.warn(f"{name}: what was stored cannot be used and is made anew ({error})")
            self.store.discard(artifact)
            artifact = self.store.stage(name, options, inputs, make)
            load(artifact.folder)
        self.seconds[name] = round(artifact.seconds, 1)
        self.ui.note(f"{name}: {'reused' if artifact.reused else f'done in {artifact.seconds:.0f} s'}")
        return artifact

    def told(self, artifact: Artifact) -> Ui:
        """The user interface of what is said of a stage: warnings alone where the stage is reused."""
        silent: Any = Silent()
        silent.warn = self.ui.warn
        return silent if artifact.reused else self.ui  # type: ignore[no-any-return]

    def corpus(self, split: Split) -> Corpus:
        return corpus_of(split, self.components.encoder, self.device)

    def context(self, checkpoints: Path) -> FitContext:
        return FitContext(self.recipe.train.seed, self.device, checkpoints, self.ui.progress, self.log)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Adds the duration of a step without artifact to the run's seconds."""
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 1)
        self.ui.note(f"{name}: done in {self.seconds[name]:.0f} s")
