"""Miniature trainings: a small T5 (or the backbone under test) learns identifiers and searches the training images.

It searches *training* images on purpose: identifiers that do not depend on content cannot be predicted for new images,
but they can be memorized, so such schemes pass, too. The measure is recall@1 over images; images with equal scores
share the first place, so giving all images one identifier does not help.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from genret.api import Backbone, Corpus, Identifier, Loss
from genret.components.backbones.t5 import T5Backbone
from genret.components.losses.generator import TokenLoss
from genret.decode.beam import beam_search
from genret.recipe.schema import TrainOptions
from genret.search.image_trie import ImageTrie, index_trie
from genret.search.ranking import rank_images
from genret.search.tokenization import tokenize_identifiers
from genret.testing.world.corpus import context
from genret.testing.world.expect import Checked
from genret.train.generator import Examples, fit_generator
from genret.train.targets import make_targets
from genret.train.teacher import Teacher

NUM_BEAMS = 10
TIMES_CHANCE = 5
"""The threshold: about 14 % for 36 images, where guessing gives 3 %; correct components reach 50 to 100 %."""
EPOCHS = 40


def small_t5() -> T5Backbone:
    options = {"d_model": 32, "d_ff": 64, "num_layers": 1, "num_heads": 4, "vocab_size": 128, "dropout": 0.0}
    return T5Backbone(T5Backbone.Config(**options))


class Trained(NamedTuple):
    backbone: Backbone
    options: TrainOptions
    trie: ImageTrie
    """The training images' identifiers, by row"""


def train_backbone(
    train: Corpus,
    identifier: Identifier,
    backbone: Backbone | None = None,
    losses: Mapping[str, Loss] | None = None,
    **options: Any,
) -> Trained:
    """Trains the unbuilt `backbone` to generate the training images' identifiers; `identifier` is fitted."""
    backbone = backbone or small_t5()
    losses = losses or {"token": TokenLoss()}
    words = TrainOptions(**{"epochs": EPOCHS, "batch_size": 24, "lr": 5e-3, "rank_beams": 5, "bf16": False} | options)
    width = train.features.shape[1] if backbone.reads_features else 0
    backbone.build(identifier.vokens, identifier.code_vectors(), train.captions, 0, width)
    targets = make_targets(train, identifier, words)
    tokens = tokenize_identifiers(backbone, targets.identifiers, words.end_symbol)
    index = index_trie(backbone, targets.own, np.arange(len(train.features)), words.end_symbol)
    needs_teacher = any(loss.needs_teacher for loss in losses.values())
    teacher = None
    if needs_teacher:
        assert train.text_features is not None
        teacher = Teacher(identifier, backbone, train.text_features, words.teacher_temperature, None)
    examples = Examples(train.captions, targets, tokens, index.trie, teacher, train.features)
    with tempfile.TemporaryDirectory() as folder:
        fit_generator(backbone, examples, losses, words, None, context(Path(folder)))
    backbone.module.eval()
    return Trained(backbone, words, index)


def train_and_search(
    train: Corpus,
    identifier: Identifier,
    backbone: Backbone | None = None,
    losses: Mapping[str, Loss] | None = None,
    **options: Any,
) -> float:
    """`train_backbone`, then recall@1 over the training images, 0 to 1."""
    assert train.owners is not None
    writer, words, index = train_backbone(train, identifier, backbone, losses, **options)
    beams = beam_search(writer, train.captions, index.trie, NUM_BEAMS, words.score)
    ranked = rank_images(beams.leaves.cpu().numpy(), beams.scores.float().cpu().numpy(), index.leaf_images)
    first = (ranked.scores == ranked.scores[:, :1]) & (ranked.images >= 0)
    right = first & (ranked.images == train.owners.numpy()[:, None])
    return float((right.sum(1) / np.maximum(first.sum(1), 1)).mean())


def expect_better_than_chance(
    checked: Checked, num_images: int, recall: float, advice: str, times: float = TIMES_CHANCE
) -> None:
    chance = 1 / num_images
    checked.expect(
        recall >= times * chance,
        f"after a miniature training, a search among the training images finds {100 * recall:.0f} % of them first; "
        f"guessing finds {100 * chance:.0f} %, and {100 * times * chance:.0f} % are asked for. {advice}",
    )


def seeded(seed: int) -> None:
    """Changes the state of the global random generators, so that two calls draw different numbers from them."""
    torch.manual_seed(seed)
    np.random.seed(seed)
