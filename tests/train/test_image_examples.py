"""What is learnt from the pictures' vectors: identifiers (GRACE), words (TIGeR)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from genret.api import GeneratorBatch, Identifiers, Silent, Vokens
from genret.components.backbones.t5 import T5Backbone
from genret.components.losses.generator import MemorizeLoss, ReverseLoss, TokenLoss
from genret.kit import loop
from genret.recipe.schema import TrainOptions
from genret.search.image_trie import index_trie
from genret.search.tokenization import tokenize_identifiers
from genret.train.generator import Examples, fit_generator
from genret.train.image_examples import ImageExamples
from genret.train.targets import Targets

torch.set_num_threads(1)
CAPTIONS = ["a dog", "the sea", "two cars", "snow", "a boy and a dog", "red sun"]
CODES = torch.tensor([[i, (i * 2 + 1) % 6] for i in range(6)])
VECTORS = torch.nn.functional.normalize(torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), dim=-1)


def fitted(folder: Path, losses, **words) -> T5Backbone:
    backbone = T5Backbone(T5Backbone.Config(d_model=32, d_ff=48, num_layers=1, num_heads=4, vocab_size=80, dropout=0.0))
    backbone.build(Vokens((6, 6)), None, CAPTIONS, seed=0, feature_width=5)
    identifiers = Identifiers(torch.arange(6), codes=CODES)
    index = index_trie(backbone, identifiers, np.arange(6), False)
    targets = Targets(identifiers, 6, torch.arange(6)[:, None], torch.ones(6, 1))
    tokens = tokenize_identifiers(backbone, identifiers, False)
    examples = Examples(CAPTIONS, targets, tokens, index.trie, None, VECTORS)
    options = TrainOptions(**({"epochs": 60, "batch_size": 6, "lr": 5e-3, "bf16": False} | words))
    context = loop.FitContext(0, torch.device("cpu"), folder, Silent().progress, lambda row: None)
    fit_generator(backbone, examples, losses, options, None, context)
    return backbone


def test_identifiers_of_pictures_are_memorized(tmp_path):
    backbone = fitted(tmp_path, {"memorize": MemorizeLoss()})
    targets = backbone.tokens(Identifiers(torch.arange(6), codes=CODES))
    assert torch.equal(backbone.feature_logits(VECTORS, targets).argmax(-1), targets)


def test_words_of_pictures_are_learnt_beside_identifiers(tmp_path):
    backbone = fitted(tmp_path, {"token": TokenLoss(), "reverse": ReverseLoss()})
    table = torch.stack([backbone.caption_log_probs(vector.expand(6, -1), CAPTIONS) for vector in VECTORS])
    assert torch.equal(table.argmax(0), torch.arange(6)), "a caption is likeliest given its own picture"
    assert torch.equal(table.argmax(1), torch.arange(6))


def test_memorized_are_all_own_identifiers_of_a_picture_and_no_variants():
    class Told:
        def feature_logits(self, features, targets):
            self.told = features, targets
            return torch.zeros(*targets.shape, 9)

    owners = torch.tensor([0, 0, 1, 0, 1])  # the last two are variants
    targets = Targets(
        Identifiers(owners, codes=torch.arange(5)[:, None]), 3, torch.tensor([[3], [4]]), torch.ones(2, 1)
    )
    pictures = ImageExamples(VECTORS[:2], targets, torch.arange(5)[:, None])
    batch, backbone, seen = GeneratorBatch(torch.empty(0), torch.zeros(4, 1), [None]), Told(), set()
    torch.manual_seed(0)
    for _ in range(20):
        images = torch.tensor([0, 1, 0, 1])
        out = pictures.add(batch, backbone, images, ["", "", "", ""], [MemorizeLoss()])
        assert torch.equal(backbone.told[0], VECTORS[images]) and torch.equal(backbone.told[1], out.image_targets)
        assert out.image_targets[1::2].tolist() == [[2], [2]] and out.caption_log_probs is None
        seen |= set(out.image_targets[::2, 0].tolist())
    assert seen == {0, 1}


def test_the_losses_are_what_they_say():
    torch.manual_seed(0)
    logits, targets, columns = (
        torch.randn(3, 2, 8),
        torch.tensor([[2, 5], [3, 6], [2, -1]]),
        [torch.tensor([2, 3]), None],
    )
    memorize = MemorizeLoss(MemorizeLoss.Config(label_smoothing=0.1))
    token = TokenLoss(TokenLoss.Config(label_smoothing=0.1))
    batch = GeneratorBatch(torch.empty(0), torch.zeros(3, 2), columns, image_logits=logits, image_targets=targets)
    own = [logits[:, 0, [2, 3]], logits[:, 1]]
    expected = token(GeneratorBatch(own, targets, columns))
    assert memorize(batch) == pytest.approx(float(expected))
    log_probs = torch.tensor([-1.0, -3.5])
    assert ReverseLoss()(batch._replace(caption_log_probs=log_probs)) == pytest.approx(2.25)
