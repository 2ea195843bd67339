"""The kit catches what it is for: sound components, each with one thing broken, and what it says of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pydantic import Field

import genret
from genret import testing
from genret.api import Additive, NewImages
from genret.errors import GenretError
from genret.plugin.registry import KINDS
from genret.testing.templates.backbone import END, ExampleBackbone
from genret.testing.templates.dataset import COLOURS, ExampleDataset
from genret.testing.templates.encoder import ExampleEncoder
from genret.testing.templates.evaluator import ExampleEvaluator
from genret.testing.templates.identifier import ExampleIdentifier
from genret.testing.templates.loss import ExampleLoss
from genret.testing.templates.reranker import ExampleReranker
from genret.testing.templates.retriever import ExampleRetriever
from genret.toolbox.text_table import TextTable

MUTANTS: list[tuple[Callable[..., None], type, str]] = []


def mutant(check: Callable[..., None], says: str) -> Callable[[type], type]:
    """Registers a broken component: `check` has to fail with `says` in its message."""

    def add(component: type) -> type:
        component.__doc__ = component.__doc__ or "Broken on purpose."
        MUTANTS.append((check, component, says))
        return component

    return add


# ------------------------------------------------------------------------------------------------ any kind
@mutant(testing.check_identifier, "Config.depth has no meaning")
class NoMeaning(ExampleIdentifier):
    class Config(ExampleIdentifier.Config):
        depth: int = 3


@mutant(testing.check_identifier, "the default of Config.depth, 0, breaks its own rules")
class WrongDefault(ExampleIdentifier):
    class Config(ExampleIdentifier.Config):
        depth: int = Field(0, ge=1)
        """How deep."""


@mutant(testing.check_identifier, "Config is not frozen")
class NotFrozen(ExampleIdentifier):
    class Config(ExampleIdentifier.Config, frozen=False):  # type: ignore[call-arg]
        pass


@mutant(testing.check_identifier, "takes unknown keys")
class TakesAnything(ExampleIdentifier):
    class Config(ExampleIdentifier.Config, extra="allow"):  # type: ignore[call-arg]
        pass


@mutant(testing.check_identifier, "does not implement identify")
class Unfinished(genret.Identifier):
    def fit(self, train: Any, losses: Any, context: Any) -> None: ...
    def save(self, folder: Path) -> None: ...
    def load(self, folder: Path) -> None: ...


@mutant(testing.check_loss, "has a Config that is no subclass of LossConfig")
class NoWeight(ExampleLoss):
    class Config(genret.Config):
        margin: float = 1.0
        """How far."""


# ------------------------------------------------------------------------------------------------ identifiers
class Changed(ExampleIdentifier):
    """Identifiers after some change."""

    def identify(self, corpus: genret.Corpus) -> Any:
        found = super().identify(corpus)
        return self.change(found, corpus)

    def change(self, found: Any, corpus: genret.Corpus) -> Any:
        return found


@mutant(testing.check_identifier, "return torch.int64")
class ShortIntegers(Changed):
    def change(self, found: Any, corpus: genret.Corpus) -> Any:
        return found._replace(codes=found.codes.int())


@mutant(testing.check_identifier, "has the shape (36, 4); return (36, 3)")
class OneLevelMore(Changed):
    def change(self, found: Any, corpus: genret.Corpus) -> Any:
        return found._replace(codes=torch.cat([found.codes, found.codes[:, :1]], 1))


@mutant(testing.check_identifier, "outside 0 .. K - 1")
class CodesFromOne(Changed):
    def change(self, found: Any, corpus: genret.Corpus) -> Any:
        return found._replace(codes=torch.full_like(found.codes, 64))


@mutant(testing.check_identifier, "-1 before the end")
class Gaps(Changed):
    def change(self, found: Any, corpus: genret.Corpus) -> Any:
        codes = found.codes.clone()
        codes[3, 1] = -1
        return found._replace(codes=codes)


@mutant(testing.check_identifier, "vokens.variable is False")
class SecretlyVariable(Changed):
    def change(self, found: Any, corpus: genret.Corpus) -> Any:
        codes = found.codes.clone()
        codes[::2, 2] = -1
        return found._replace(codes=codes)


@mutant(testing.check_identifier, "names 35 of 36 images")
class LeavesOneOut(Changed):
    def change(self, found: Any, corpus: genret.Corpus) -> Any:
        return found._replace(owners=found.owners[:-1], codes=found.codes[:-1])


@mutant(testing.check_identifier, "order identifiers by image")
class OutOfOrder(Changed):
    def change(self, found: Any, corpus: genret.Corpus) -> Any:
        return found._replace(owners=found.owners.flip(0), codes=found.codes.flip(0))


@mutant(testing.check_identifier, "set exactly one")
class BothKinds(Changed):
    def change(self, found: Any, corpus: genret.Corpus) -> Any:
        return found._replace(texts=["x"] * len(found.codes))


@mutant(testing.check_identifier, "vokens adds symbols; leave vokens empty")
class TextsWithVokens(Changed):
    def change(self, found: Any, corpus: genret.Corpus) -> Any:
        return found._replace(codes=None, texts=[f"image {n}" for n in found.owners.tolist()])


@mutant(testing.check_identifier, "not fitted yet; train a run")
class CrashesUnfitted(ExampleIdentifier):
    def identify(self, corpus: genret.Corpus) -> Any:
        assert self.directions is not None
        return super().identify(corpus)


@mutant(testing.check_identifier, "two fits with one seed")
class IgnoresTheSeed(ExampleIdentifier):
    def fit(self, train: Any, losses: Any, context: Any) -> None:
        super().fit(train, losses, context._replace(seed=random.randrange(2**31)))


@mutant(testing.check_identifier, "two fits with one seed")
class DrawsFromTheProcess(ExampleIdentifier):
    def fit(self, train: Any, losses: Any, context: Any) -> None:
        self.directions = torch.randn(3, 64, train.features.shape[1])


@mutant(testing.check_identifier, "other identifiers when it is called again")
class ChangesItsMind(Changed):
    def change(self, found: Any, corpus: genret.Corpus) -> Any:
        self.calls = getattr(self, "calls", 0) + 1
        return found if self.calls < 2 else found._replace(codes=(found.codes + self.calls) % 64)


@mutant(testing.check_identifier, "an image keeps its identifier")
class NumbersTheBatch(Changed):
    def change(self, found: Any, corpus: genret.Corpus) -> Any:
        return found._replace(codes=found.owners[:, None] + torch.zeros(1, 3, dtype=torch.int64))


@mutant(testing.check_identifier, "in place; work on a copy")
class SpoilsTheCorpus(ExampleIdentifier):
    def fit(self, train: Any, losses: Any, context: Any) -> None:
        super().fit(train, losses, context)
        train.features[0] = -train.features[0]


@mutant(testing.check_identifier, "after save() and load() the same images get other identifiers")
class Forgets(ExampleIdentifier):
    def load(self, folder: Path) -> None:
        self.directions = torch.randn(3, 64, 16, generator=torch.Generator().manual_seed(99))


@mutant(testing.check_identifier, "after load(), vokens is")
class ForgetsItsVokens(ExampleIdentifier):
    def __init__(self, config: Any = None, **resources: Any):
        super().__init__(config, **resources)
        self.vokens = genret.Vokens()

    def fit(self, train: Any, losses: Any, context: Any) -> None:
        super().fit(train, losses, context)
        self.vokens = genret.Vokens((64,) * 3)


@mutant(testing.check_identifier, "save() wrote example.pt")
class Pickles(ExampleIdentifier):
    def save(self, folder: Path) -> None:
        folder.mkdir()
        torch.save(self.directions, folder / "example.pt")


@mutant(testing.check_identifier, "but identify() refuses new images")
class SaysDescribedRefuses(Changed):
    def change(self, found: Any, corpus: genret.Corpus) -> Any:
        if corpus.image_ids[0].startswith("new"):
            raise genret.GenretError("no")
        return found


@mutant(testing.check_identifier, "'refused', but identify() names new images")
class SaysRefusedNames(ExampleIdentifier):
    new_images: ClassVar[NewImages] = "unsupported"


@mutant(testing.check_identifier, 'follow from their vectors; set new_images = "content_based"')
class SaysNumberedDescribes(ExampleIdentifier):
    new_images: ClassVar[NewImages] = "assigned"


class ById(ExampleIdentifier):
    """Codes by the image's id."""

    def identify(self, corpus: genret.Corpus) -> Any:
        super().identify(corpus)
        codes = [[sum(image_id.encode()) % 64, len(image_id), ord(image_id[-1]) % 64] for image_id in corpus.image_ids]
        return genret.Identifiers(torch.arange(len(codes)), codes=torch.tensor(codes))


@mutant(testing.check_identifier, "change with their ids")
class SaysDescribedDraws(ById):
    pass


@mutant(testing.check_identifier, "number them from corpus.named_before on")
class ForgetsItsCount(ById):
    new_images: ClassVar[NewImages] = "assigned"

    def identify(self, corpus: genret.Corpus) -> Any:
        found = super().identify(corpus)
        if corpus.image_ids[0].startswith("new"):
            found = found._replace(codes=found.owners[:, None] + torch.zeros(1, 3, dtype=torch.int64))
        return found


@mutant(testing.check_identifier, "depends on the images that come with it")
class LooksAtNeighbours(Changed):
    def change(self, found: Any, corpus: genret.Corpus) -> Any:
        if not corpus.image_ids[0].startswith("train"):
            found = found._replace(codes=(found.codes + len(found.codes)) % 64)
        return found


@mutant(testing.check_identifier, "new images get codes that are taken")
class SaysItAvoids(ExampleIdentifier):
    avoids_collisions = True

    def identify(self, corpus: genret.Corpus) -> Any:
        return super().identify(corpus) if corpus.taken is None else self.clash(corpus)

    def clash(self, corpus: genret.Corpus) -> Any:
        rows = torch.zeros(len(corpus.features), dtype=torch.int64)
        return genret.Identifiers(torch.arange(len(rows)), codes=corpus.taken[rows])


@mutant(testing.check_identifier, "uses_tokenizer_losses is True, but fit() computed none")
class SaysItDescends(ExampleIdentifier):
    uses_tokenizer_losses = True


@mutant(testing.check_identifier, "calls the tokenizer losses, but uses_tokenizer_losses is False")
class DescendsInSecret(ExampleIdentifier):
    def fit(self, train: Any, losses: Any, context: Any) -> None:
        super().fit(train, losses, context)
        some = train.features[:4].clone().requires_grad_()
        batch = genret.TokenizerBatch(some, some, some, some[:, None], some)
        for loss in losses.values():
            loss(batch)


@mutant(testing.check_identifier, "has_code_vectors is True, but code_vectors() is None")
class SaysItHasVectors(ExampleIdentifier):
    has_code_vectors = True


@mutant(testing.check_identifier, "code_vectors() has the shape (64, 16); return (192, D_code)")
class TooFewVectors(ExampleIdentifier):
    has_code_vectors = True

    def code_vectors(self) -> Any:
        return None if self.directions is None else self.directions[0]


@mutant(testing.check_identifier, "is_additive is True, but additive() is None")
class SaysItAddsUp(ExampleIdentifier):
    is_additive = True


@mutant(testing.check_identifier, "is_additive is False; set it to True")
class AddsUpInSecret(ExampleIdentifier):
    def additive(self, features: Any) -> Any:
        return Additive(features, [features[:64]])


@mutant(testing.check_identifier, "they should add up to it")
class DoesNotAddUp(ExampleIdentifier):
    is_additive = True

    def additive(self, features: Any) -> Any:
        return Additive(features, [torch.full((64, features.shape[1]), 9.0)] * 3)


@mutant(testing.check_identifier, "has_teacher is False; set it to True")
class TeachesInSecret(ExampleIdentifier):
    def code_probabilities(self, features: Any, codes: Any, temperature: float) -> Any:
        return [torch.full((len(features), 64), 1 / 64)] * 3


@mutant(testing.check_identifier, "end with softmax(-1)")
class TeachesLogits(ExampleIdentifier):
    has_teacher = True

    def code_probabilities(self, features: Any, codes: Any, temperature: float) -> Any:
        return list(torch.einsum("nd,mkd->mnk", features, self.directions) / temperature)


@mutant(testing.check_identifier, "hesitates more at temperature 0.05")
class TeachesUpsideDown(ExampleIdentifier):
    has_teacher = True

    def code_probabilities(self, features: Any, codes: Any, temperature: float) -> Any:
        return list((torch.einsum("nd,mkd->mnk", features, self.directions) * temperature).softmax(-1))


@mutant(testing.check_identifier, "scale them to 1")
class RebuildsLong(ExampleIdentifier):
    def reconstruct(self, codes: Any) -> Any:
        return torch.stack([self.directions[level, codes[:, level]] for level in range(3)]).sum(0)


@mutant(testing.check_identifier, "no nearer to the image's own vector")
class RebuildsNoise(ExampleIdentifier):
    def reconstruct(self, codes: Any) -> Any:
        rebuilt = torch.stack([self.directions[level, codes[:, level]] for level in range(3)]).sum(0)
        return -torch.nn.functional.normalize(rebuilt, dim=-1)


@mutant(testing.check_identifier, "Give different images different identifiers")
class OneForAll(ExampleIdentifier):
    """Two identifiers for everything: whoever writes one of them is right half the time, and finds nothing."""

    def identify(self, corpus: genret.Corpus) -> Any:
        found = super().identify(corpus)
        return found._replace(codes=(corpus.features[:, :1] > 0).long().repeat(1, 3))


# ------------------------------------------------------------------------------------------------ backbones
@mutant(testing.check_backbone, "call torch.manual_seed(seed) first")
class Unseeded(ExampleBackbone):
    def build(self, vokens: Any, code_vectors: Any, texts: Any, seed: int, feature_width: int = 0) -> None:
        self._set(vokens)


@mutant(testing.check_backbone, "ids at level 1 that level_tokens lacks")
class ForgetsOffsets(ExampleBackbone):
    def tokens(self, identifiers: Any) -> Any:
        if identifiers.codes is None:
            return super().tokens(identifiers)
        return (identifiers.codes + END + 1).masked_fill(identifiers.codes < 0, -1)


@mutant(testing.check_backbone, "holds the end symbol")
class WritesTheEnd(ExampleBackbone):
    def tokens(self, identifiers: Any) -> Any:
        return torch.nn.functional.pad(super().tokens(identifiers), (0, 1), value=END)


@mutant(testing.check_backbone, "and the end symbol")
class ForgetsTheEnd(ExampleBackbone):
    def level_tokens(self, level: int) -> Any:
        found = super().level_tokens(level)
        return None if found is None else found[found != END]


@mutant(testing.check_backbone, "is not sorted")
class Unsorted(ExampleBackbone):
    def level_tokens(self, level: int) -> Any:
        found = super().level_tokens(level)
        return None if found is None else found.flip(0)


@mutant(testing.check_backbone, "for identifiers of text; return None")
class LevelsOfText(ExampleBackbone):
    def level_tokens(self, level: int) -> Any:
        return torch.arange(END) if not self.vokens.sizes else super().level_tokens(level)


@mutant(testing.check_backbone, "with the queries beside it; mask the padding")
class MixesQueries(ExampleBackbone):
    def _read(self, queries: Any) -> Any:
        read = super()._read(queries)
        return read + 0.1 * read.mean(0)


@mutant(testing.check_backbone, "shift the targets by one")
class LooksAhead(ExampleBackbone):
    def _forced(self, state: Any, targets: Any) -> Any:
        return super()._forced(state, targets) + 0.1 * targets.clamp_min(0).sum(1)[:, None, None]


@mutant(testing.check_backbone, "state has to follow `parents`")
class ForgetsParents(ExampleBackbone):
    def step(self, state: Any, symbols: Any, parents: Any, columns: Any) -> Any:
        if parents is not None and symbols is not None:
            width = state["hidden"].shape[1]
            parents = torch.arange(symbols.shape[1]).clamp_max(width - 1).expand_as(symbols)
        return super().step(state, symbols, parents, columns)


@mutant(testing.check_backbone, "is not 0 at pads")
class ScoresPads(ExampleBackbone):
    def score(self, queries: Any, sequences: Any, columns: Any) -> Any:
        return super().score(queries, sequences, columns) - (sequences < 0).float()


@mutant(testing.check_backbone, "log-probability over columns")
class ScoresLogits(ExampleBackbone):
    def score(self, queries: Any, sequences: Any, columns: Any) -> Any:
        return super().score(queries, sequences, columns) * 2


@mutant(testing.check_backbone, "has no gradient; losses compare candidates")
class ScoresDetached(ExampleBackbone):
    def score(self, queries: Any, sequences: Any, columns: Any) -> Any:
        return super().score(queries, sequences, columns).detach()


@mutant(testing.check_backbone, "after save() and load() logits() differ")
class LoadsOtherWeights(ExampleBackbone):
    def load(self, folder: Path, vokens: Any) -> None:
        self._set(vokens)
        self.module.eval()


@mutant(testing.check_backbone, "load() leaves the model in training mode")
class LoadsForTraining(ExampleBackbone):
    def load(self, folder: Path, vokens: Any) -> None:
        super().load(folder, vokens)
        self.module.train()


@mutant(testing.check_backbone, "level_logits() at position 0 are not logits()")
class TakesThemBackwards(ExampleBackbone):
    def level_logits(self, *asked: Any) -> Any:
        return [own.flip(-1) for own in super().level_logits(*asked)]


@mutant(testing.check_backbone, "feature_logits() answers, but reads_features is False")
class ReadsInSecret(ExampleBackbone):
    def feature_logits(self, features: Any, targets: Any) -> Any:
        return self._forced(torch.zeros(len(targets), self.config.width), targets)


@mutant(testing.check_backbone, "has_query_vectors is True, but query_vectors() is not implemented")
class SaysItReadsVectors(ExampleBackbone):
    has_query_vectors = True


@mutant(testing.check_backbone, "query_vectors() answers, but has_query_vectors is False")
class ReadsVectorsInSecret(ExampleBackbone):
    def query_vectors(self, state: Any) -> Any:
        return torch.eye(6)


@mutant(testing.check_backbone, "query_vectors() are alike for unlike queries")
class ReadsOneVector(ExampleBackbone):
    has_query_vectors = True

    def query_vectors(self, state: Any) -> Any:
        return torch.ones(len(testing.backbone.QUERIES), 3)


@mutant(testing.check_backbone, "Check that gradients reach every weight and that the queries' words do")
class Deaf(ExampleBackbone):
    def _read(self, queries: Any) -> Any:
        return super()._read(["the same"] * len(queries))


# ------------------------------------------------------------------------------------------------ losses
@mutant(testing.check_loss, "its stage is 'writer'")
class NoStage(ExampleLoss):
    stage = "writer"  # type: ignore[assignment]


@mutant(testing.check_loss, "its value has the shape (6,); return ()")
class PerExample(ExampleLoss):
    def __call__(self, batch: Any) -> Any:
        return torch.stack([own.mean(1) for own in batch.logits]).mean(0)


@mutant(testing.check_loss, "its value holds numbers that are not finite")
class NotFinite(ExampleLoss):
    needs_candidates = True

    def __call__(self, batch: Any) -> Any:
        return -batch.candidate_scores.mean()


@mutant(testing.check_loss, "set the flag of what it uses to True, one of: needs_candidates")
class NeedsInSecret(ExampleLoss):
    def __call__(self, batch: Any) -> Any:
        return super().__call__(batch) - batch.candidate_scores.clamp_min(-9).mean()


@mutant(testing.check_loss, "declares needs_teacher, but does not look at it")
class NeedsNothing(ExampleLoss):
    needs_teacher = True


@mutant(testing.check_loss, "another value for the same batch")
class Dices(ExampleLoss):
    def __call__(self, batch: Any) -> Any:
        return super().__call__(batch) * torch.rand(())


@mutant(testing.check_loss, "where targets are -1; leave pads out")
class LearnsPads(ExampleLoss):
    def __call__(self, batch: Any) -> Any:
        return super().__call__(batch) + sum(own[:, 0].square().mean() for own in batch.logits)


@mutant(testing.check_loss, "compute in float32")
class Coarse(ExampleLoss):
    def __call__(self, batch: Any) -> Any:
        return super().__call__(batch).to(batch.logits[0].dtype)


@mutant(testing.check_loss, "has no gradient; compute it from the batch")
class Detached(ExampleLoss):
    def __call__(self, batch: Any) -> Any:
        return super().__call__(batch).detach()


@mutant(testing.check_loss, "let its gradient lower it")
class StandsStill(ExampleLoss):
    def __call__(self, batch: Any) -> Any:
        return 0 * super().__call__(batch) + 1


@mutant(testing.check_loss, "It works against the plain objective")
class Climbs(ExampleLoss):
    def __call__(self, batch: Any) -> Any:
        return -super().__call__(batch).clamp_min(0.1)


@mutant(testing.check_loss, "its gradient is not a number")
class NoGradient(ExampleLoss):
    needs_candidates = True

    def __call__(self, batch: Any) -> Any:
        best = batch.candidate_scores.float() - batch.candidate_scores.float().max()
        return torch.where(torch.isfinite(best), best.exp().sqrt() + best, torch.zeros(())).square().mean()


@mutant(testing.check_loss, "It works against the plain objective")
class Flattens(ExampleLoss):
    """Everything shall be alike."""

    def __call__(self, batch: Any) -> Any:
        there = (batch.targets >= 0).T[..., None]
        return 1e4 * sum((own.float() * here).square().mean() for own, here in zip(batch.logits, there, strict=True))


# ------------------------------------------------------------------------------------------------ encoders
@mutant(testing.check_encoder, "is torch.float64; return torch.float32")
class Doubles(ExampleEncoder):
    def text_features(self, texts: Any) -> Any:
        return super().text_features(texts).double()


@mutant(testing.check_encoder, "differs between two encoders with the same options")
class KeyOfTheMoment(ExampleEncoder):
    def tower_key(self, modality: Any) -> Any:
        return f"{super().tower_key(modality)}-{id(self)}"


@mutant(testing.check_encoder, "differs from call to call; switch dropout off")
class Noisy(ExampleEncoder):
    def image_features(self, images: Any, view: int = 0) -> Any:
        return super().image_features(images, view) + 0.1 * torch.randn(1)


@mutant(testing.check_encoder, "of a row changes with the rows beside it")
class Centres(ExampleEncoder):
    def image_features(self, images: Any, view: int = 0) -> Any:
        rows = super().image_features(images, view)
        return rows - rows.mean(0)


@mutant(testing.check_encoder, "gives all pictures one vector")
class Blind(ExampleEncoder):
    def image_features(self, images: Any, view: int = 0) -> Any:
        return torch.ones(len(images), 12)


@mutant(testing.check_encoder, "scale them to 1")
class LongRows(ExampleEncoder):
    def project_texts(self, features: Any) -> Any:
        return 3 * super().project_texts(features)


@mutant(testing.check_encoder, "make them one space")
class TwoSpaces(ExampleEncoder):
    def project_texts(self, features: Any) -> Any:
        return torch.nn.functional.normalize(super().project_texts(features)[:, :7], dim=-1)


@mutant(testing.check_encoder, "after save() and load() projections differ")
class ForgetsHeads(ExampleEncoder):
    def load(self, folder: Path) -> None:
        super().load(folder)
        self.weights = self.weights.flip(0)


@mutant(testing.check_encoder, "two fits with one seed give different heads")
class UnseededHeads(ExampleEncoder):
    def project_images(self, features: Any) -> Any:
        self.turn = getattr(self, "turn", None)
        if self.turn is None:
            self.turn = torch.randn(features.shape[1], generator=torch.Generator().manual_seed(random.randrange(2**31)))
        return super().project_images(features * self.turn)


@mutant(testing.check_encoder, "Check that fit() learns")
class LearnsNothing(ExampleEncoder):
    def fit(self, train: Any, dev: Any, context: Any) -> None:
        size = train.texts.shape[1], train.images.shape[2]
        self.weights = torch.randn(size, generator=torch.Generator().manual_seed(0))


# ------------------------------------------------------------------------------------------------ data sets
@mutant(testing.check_dataset, "yield records one by one")
class Lists(ExampleDataset):
    def records(self, split: str) -> Any:
        return list(super().records(split))


@mutant(testing.check_dataset, "sort what comes in any order")
class Shuffles(ExampleDataset):
    def records(self, split: str) -> Any:
        found = list(super().records(split))
        random.shuffle(found)
        yield from found


@mutant(testing.check_dataset, "make ids unique")
class SameIds(ExampleDataset):
    def records(self, split: str) -> Any:
        yield from (record._replace(image_id="red-grey") for record in super().records(split))


@mutant(testing.check_dataset, "is also in")
class Leaks(ExampleDataset):
    def read(self, record: Any) -> bytes:
        content = super().read(record)
        return super().read(record._replace(image_id=f"{COLOURS[0]}-grey")) if content else b""


@mutant(testing.check_dataset, "give a tuple of texts with something in them")
class OneCaption(ExampleDataset):
    def records(self, split: str) -> Any:
        yield from (record._replace(captions="a red square") for record in super().records(split))


@mutant(testing.check_dataset, "raise genret.UnknownName for splits that are not there")
class AnySplit(ExampleDataset):
    def records(self, split: str) -> Any:
        yield from super().records(split if split in ("train", "dev", "test") else "test")


@mutant(testing.check_dataset, "raise genret.BadImage, which is reported and skipped")
class Crashes(ExampleDataset):
    def read(self, record: Any) -> bytes:
        if "-" not in record.image_id or record.image_id.startswith("no"):
            raise KeyError(record.image_id)
        return super().read(record)


@mutant(testing.check_dataset, "no picture of 'train' can be opened")
class NoPictures(ExampleDataset):
    def read(self, record: Any) -> bytes:
        return super().read(record)[:40]


@mutant(testing.check_dataset, "Check that captions differ")
class SameCaptions(ExampleDataset):
    def records(self, split: str) -> Any:
        yield from (record._replace(captions=("a square",)) for record in super().records(split))


# ------------------------------------------------------------------------------------------------ rerankers
@mutant(testing.check_reranker, "return floats (20, 6)")
class Transposed(ExampleReranker):
    def score(self, candidates: Any) -> Any:
        return super().score(candidates).T


@mutant(testing.check_reranker, "of candidates that are there is not finite")
class Infinite(ExampleReranker):
    def score(self, candidates: Any) -> Any:
        return super().score(candidates).masked_fill(candidates.rows == 2, -torch.inf)


@mutant(testing.check_reranker, "changes with its place")
class ByPlace(ExampleReranker):
    def score(self, candidates: Any) -> Any:
        return super().score(candidates) - torch.arange(candidates.rows.shape[1])


@mutant(testing.check_reranker, "with the queries beside it")
class AcrossQueries(ExampleReranker):
    def score(self, candidates: Any) -> Any:
        return super().score(candidates) - len(candidates.queries)


@mutant(testing.check_reranker, "rows of -1 are empty places")
class OpensNothing(ExampleReranker):
    def score(self, candidates: Any) -> Any:
        candidates.read(int(candidates.rows.min()))
        return super().score(candidates)


@mutant(testing.check_reranker, "in place; work on a copy")
class SpoilsScores(ExampleReranker):
    def score(self, candidates: Any) -> Any:
        candidates.scores[0, 0] = 3.0
        return super().score(candidates)


@mutant(testing.check_reranker, "Higher is better")
class WorstFirst(ExampleReranker):
    def score(self, candidates: Any) -> Any:
        return -super().score(candidates).nan_to_num(neginf=0.0)


# ------------------------------------------------------------------------------------------------ retrievers
class Found(ExampleRetriever):
    """A first stage after some change."""

    def candidates(self, view: Any, index: Any, batch: Any, k: int, num_beams: Any, allowed: Any) -> Any:
        return self.change(super().candidates(view, index, batch, k, num_beams, allowed), index, batch, num_beams)

    def change(self, found: Any, index: Any, batch: Any, num_beams: Any) -> Any:
        return found


@mutant(testing.check_retriever, "derive it from that")
class NoCatalog(genret.Retriever):
    def index(self, images: Any) -> Any: ...
    def remove(self, image_ids: Any) -> Any: ...
    def search(self, queries: Any, k: int = 10, **more: Any) -> Any: ...


@mutant(testing.check_retriever, "needs is ('identifer',)")
class NeedsAMisspeltKey(ExampleRetriever):
    needs = ("identifer",)


@mutant(testing.check_retriever, "return genret.Ranked")
class ReturnsPairs(Found):
    def change(self, found: Any, index: Any, batch: Any, num_beams: Any) -> Any:
        return found.images, found.scores


@mutant(testing.check_retriever, "candidates().images is a Tensor")
class ReturnsTensors(Found):
    def change(self, found: Any, index: Any, batch: Any, num_beams: Any) -> Any:
        return genret.Ranked(*map(torch.from_numpy, found))


@mutant(testing.check_retriever, "give images, scores and leaves one shape")
class AnswersHalf(Found):
    def change(self, found: Any, index: Any, batch: Any, num_beams: Any) -> Any:
        return genret.Ranked(*(table[::2] for table in found))


@mutant(testing.check_retriever, "return keys (those that build_index() was given), not rows")
class ReturnsRows(Found):
    def change(self, found: Any, index: Any, batch: Any, num_beams: Any) -> Any:
        return found._replace(images=np.where(found.images < 0, -1, found.images - 1 + (found.images == 1) * 40))


@mutant(testing.check_retriever, "images that may not be found")
class IgnoresRestrictions(ExampleRetriever):
    def candidates(self, view: Any, index: Any, batch: Any, k: int, num_beams: Any, allowed: Any) -> Any:
        return super().candidates(view, index, batch, k, num_beams, [type(allowed[0])()] * len(allowed))


@mutant(testing.check_retriever, "is not ordered, best first")
class NotOrdered(Found):
    def change(self, found: Any, index: Any, batch: Any, num_beams: Any) -> Any:
        return found._replace(scores=np.where(found.images < 0, found.scores, -found.scores))


@mutant(testing.check_retriever, "names an image twice")
class Repeats(Found):
    def change(self, found: Any, index: Any, batch: Any, num_beams: Any) -> Any:
        return genret.Ranked(*(np.repeat(table, 2, axis=1) for table in found))


@mutant(testing.check_retriever, "not finite where there is an image")
class NotANumber(Found):
    def change(self, found: Any, index: Any, batch: Any, num_beams: Any) -> Any:
        return found._replace(scores=np.full_like(found.scores, np.nan))


@mutant(testing.check_retriever, "find min(k, those allowed)")
class ChoosesTooEarly(ExampleRetriever):
    """The best k of all, and of these the allowed ones."""

    def candidates(self, view: Any, index: Any, batch: Any, k: int, num_beams: Any, allowed: Any) -> Any:
        best = super().candidates(view, index, batch, k, num_beams, [type(allowed[0])()] * len(allowed))
        may = np.stack([one.among(row) for one, row in zip(allowed, best.images, strict=True)])
        order = np.argsort(~may, axis=1, kind="stable")
        images, scores = np.where(may, best.images, -1), np.where(may, best.scores, -np.inf)
        return genret.Ranked(images, scores, best.leaves).take(order)


@mutant(testing.check_retriever, "let no image's score depend on the other images")
class ByTheCollection(ExampleRetriever):
    def build_index(self, view: Any, keys: Any) -> Any:
        keys, features, names = super().build_index(view, keys)
        return keys, features - features.mean(0), names


@mutant(testing.check_retriever, "otherwise when it is asked again")
class Tires(Found):
    asked = 0

    def change(self, found: Any, index: Any, batch: Any, num_beams: Any) -> Any:
        self.asked += 1
        return found._replace(scores=(found.scores / self.asked).astype(np.float32))


@mutant(testing.check_retriever, "changes with the queries beside it")
class ByTheBatch(Found):
    def change(self, found: Any, index: Any, batch: Any, num_beams: Any) -> Any:
        return found._replace(scores=found.scores + len(batch))


@mutant(testing.check_retriever, "have each their own restriction")
class OneRestrictionForAll(ExampleRetriever):
    def candidates(self, view: Any, index: Any, batch: Any, k: int, num_beams: Any, allowed: Any) -> Any:
        return super().candidates(view, index, batch, k, num_beams, [allowed[0]] * len(allowed))


@mutant(testing.check_retriever, "that another process has added is not found")
class NeverLooksAgain(ExampleRetriever):
    def index_at(self, view: Any) -> Any:
        kept = vars(self).get("kept")
        if kept is None or len(kept[0]) < 7:
            self.kept = kept = super().index_at(view) or ([],)
        return kept if len(kept[0]) else None

    def index(self, images: Any) -> Any:
        report = super().index(images)
        self.kept = None if report.added else self.kept
        return report


@mutant(testing.check_retriever, "there is a fit(), but learns is False")
class LearnsInSecret(ExampleRetriever):
    def fit(self, train: Any, context: Any) -> None: ...


@mutant(testing.check_retriever, "learns is True, but there is no fit()")
class SaysItLearns(ExampleRetriever):
    learns = True


class Learner(ExampleRetriever):
    """Weights the dimensions."""

    learns = True
    weights: Any = None

    def fit(self, train: Any, context: Any) -> None:
        self.weights = 0.9 + 0.2 * torch.rand(train.features.shape[1], generator=self.dice(context))

    def dice(self, context: Any) -> Any:
        return torch.Generator().manual_seed(context.seed)

    def save(self, folder: Path) -> None:
        (folder / "weights.json").write_text(str(self.weights.tolist()))

    def load(self, folder: Path) -> None:
        self.weights = torch.tensor(eval((folder / "weights.json").read_text()))

    def build_index(self, view: Any, keys: Any) -> Any:
        if self.weights is None:
            raise genret.GenretError("this retriever is not fitted yet; train a run, or load one")
        keys, features, names = super().build_index(view, keys)
        return keys, features * self.weights, names


@mutant(testing.check_retriever, "search() answers before fit() or load()")
class AnswersUnfitted(Learner):
    weights = torch.ones(16)


@mutant(testing.check_retriever, "search() before fit() or load() raises TypeError")
class CrashesBeforeItLearnt(Learner):
    def build_index(self, view: Any, keys: Any) -> Any:
        return keys, view.features_of(keys) * self.weights, [set()] * len(keys)


@mutant(testing.check_retriever, "two fits with one seed give different answers")
class LearnsAtRandom(Learner):
    def dice(self, context: Any) -> Any:
        return torch.Generator().manual_seed(random.randrange(2**31))


@mutant(testing.check_retriever, "after save() and load() searches are answered otherwise")
class ForgetsWhatItLearnt(Learner):
    def load(self, folder: Path) -> None:
        self.weights = torch.ones(16)


@mutant(testing.check_retriever, "save() wrote weights.pt")
class PicklesWhatItLearnt(Learner):
    def save(self, folder: Path) -> None:
        torch.save(self.weights, folder / "weights.pt")


@mutant(testing.check_retriever, "has_beams is True, but one beam finds what 36 beams find")
class SaysItHasBeams(ExampleRetriever):
    has_beams = True


@mutant(testing.check_retriever, "candidates() looks at num_beams, but has_beams is False")
class HasBeamsInSecret(Found):
    def change(self, found: Any, index: Any, batch: Any, num_beams: Any) -> Any:
        return found if num_beams is None else found.first(num_beams)


@mutant(testing.check_retriever, "trace() answers, but has_trace is False")
class TracesInSecret(ExampleRetriever):
    def trace(self, *given: Any) -> Any:
        return None


@mutant(testing.check_retriever, "signals() is (6, 1)")
class OneSignal(ExampleRetriever):
    def signals(self, ranked: Any) -> Any:
        return super().signals(ranked)[:, :1]


@mutant(testing.check_retriever, "exact_ranks() says otherwise than a search")
class RanksFromZero(ExampleRetriever):
    def exact_ranks(self, index: Any, query_features: Any, keys: Any) -> Any:
        return np.zeros(len(keys), np.int64)


@mutant(testing.check_retriever, "Higher scores are better")
class KnowsNothing(ExampleRetriever):
    def build_index(self, view: Any, keys: Any) -> Any:
        keys, features, names = super().build_index(view, keys)
        return keys, 0 * features, names


# ------------------------------------------------------------------------------------------------ evaluators
class Measured(ExampleEvaluator):
    """Figures after some change."""

    def evaluate(self, run: Any, found: Any, ui: Any) -> Any:
        figures = super().evaluate(run, found, ui)
        return None if figures is None else self.change(figures, found)

    def change(self, figures: Any, found: Any) -> Any:
        return figures


@mutant(testing.check_evaluator, "return a dict of JSON data, or None")
class ReturnsANumber(Measured):
    def change(self, figures: Any, found: Any) -> Any:
        return 3.0


@mutant(testing.check_evaluator, "evaluate()['ranks'] is a ndarray")
class ReturnsArrays(Measured):
    def change(self, figures: Any, found: Any) -> Any:
        return figures | {"ranks": np.ones(3)}


@mutant(testing.check_evaluator, "the key 5, is a object")
class NumbersForKeys(Measured):
    def change(self, figures: Any, found: Any) -> Any:
        return figures | {"at": {5: 1.0}}


@mutant(testing.check_evaluator, "which JSON does not know")
class DividesByNothing(Measured):
    def change(self, figures: Any, found: Any) -> Any:
        return figures | {"mean": float("nan")}


@mutant(testing.check_evaluator, "other figures for the same run")
class DrawsFigures(Measured):
    def change(self, figures: Any, found: Any) -> Any:
        return figures | {"sample": random.random()}


@mutant(testing.check_evaluator, "changes what was found in place")
class SortsTheAnswer(Measured):
    def change(self, figures: Any, found: Any) -> Any:
        found.answer.images.sort()
        return figures


@mutant(testing.check_evaluator, "lines of text; return a list of those")
class TablesOfLists(ExampleEvaluator):
    def tables(self, figures: Any, split: str) -> Any:
        return [["a", "b"]]


@mutant(testing.check_evaluator, "cells in its rows; give all as many")
class RaggedTables(ExampleEvaluator):
    def tables(self, figures: Any, split: str) -> Any:
        return [TextTable("t", ["a", "b"], [["1"]], 1)]


@mutant(testing.check_evaluator, "depth is 0")
class LooksAtNothing(ExampleEvaluator):
    depth = 0


@pytest.mark.parametrize("method", ["before_training", "after_training", "evaluate", "tables"])
def test_what_an_evaluator_raises_names_when(method: str) -> None:
    def fails(self: Any, *given: Any) -> None:
        raise ZeroDivisionError

    broken = type("Raises", (ExampleEvaluator,), {method: fails, "__doc__": "Broken on purpose."})
    with pytest.raises((ZeroDivisionError, GenretError)) as caught:
        testing.check_evaluator(broken)
    assert isinstance(caught.value.__cause__ or caught.value, ZeroDivisionError)
    assert "Raises raised this while" in caught.value.__notes__[0]


def test_an_evaluator_may_not_need_an_answer() -> None:
    class OnlyAnswers(Measured):
        """Fails where nothing was found."""

        def evaluate(self, run: Any, found: Any, ui: Any) -> Any:
            return {"first": int(found.answer.images[0, 0])}

    with pytest.raises(AttributeError) as caught:
        testing.check_evaluator(OnlyAnswers)
    assert "where nothing could be searched" in caught.value.__notes__[0]


def test_an_automatic_evaluator_has_defaults() -> None:
    class Asks(ExampleEvaluator):
        """Broken on purpose."""

        class Config(genret.Config):
            folder: str
            """Where to."""

    with pytest.raises(testing.ContractError, match=r"its option \['folder'\] has no default"):
        testing.check_evaluator(Asks, folder="x")


def test_a_retriever_that_learns_passes() -> None:
    testing.check_retriever(Learner)


# ------------------------------------------------------------------------------------------------ the tests
@pytest.mark.parametrize(
    ("check", "component", "says"), MUTANTS, ids=[component.__name__ for _, component, _ in MUTANTS]
)
def test_broken_components_are_caught_and_told_what_to_change(check: Any, component: type, says: str) -> None:
    with pytest.raises(testing.ContractError) as caught:
        check(component)
    assert says in str(caught.value), caught.value
    assert str(caught.value).startswith(f"{component.__name__}: ")


def test_what_a_component_raises_itself_comes_with_what_was_asked_of_it() -> None:
    class Raises(ExampleIdentifier):
        """Broken on purpose."""

        def fit(self, train: Any, losses: Any, context: Any) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        testing.check_identifier(Raises)
    assert "Raises raised this while fit() was called on cpu" in caught.value.__notes__[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_unbroken_ones_pass(kind: str) -> None:
    component = globals()[f"Example{kind.capitalize()}"]
    getattr(testing, f"check_{kind}")(component)


def test_options_that_are_wrong_are_named() -> None:
    with pytest.raises(testing.ContractError, match="num_levles: unknown key, did you mean 'num_levels'"):
        testing.check_identifier(ExampleIdentifier, num_levles=2)
