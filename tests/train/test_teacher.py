"""The dense teacher against its definition: codes weighted by how near they lie to the rest of a caption's vector."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from genret.api import Vokens
from genret.components.backbones.t5 import T5Backbone
from genret.components.identifiers.rq import RQIdentifier, RQTraining
from genret.errors import UsageError
from genret.train.teacher import Teacher


@pytest.fixture
def identifier() -> RQIdentifier:
    torch.manual_seed(0)
    made = RQIdentifier(RQIdentifier.Config(codebook_size=5, num_levels=2, train=RQTraining(epochs=0)))
    made.network = made._network(4).eval()
    return made


def teacher_of(identifier: RQIdentifier, temperature: float, levels: int | None = None) -> Teacher:
    backbone = T5Backbone(T5Backbone.Config(d_model=16, d_ff=16, num_layers=1, num_heads=2, vocab_size=64))
    backbone.build(identifier.vokens, None, ["a dog", "a cat"], seed=0)
    torch.manual_seed(1)
    return Teacher(identifier, backbone, F.normalize(torch.randn(3, 4), dim=-1), temperature, levels)


def test_probabilities_are_the_softmax_of_half_squared_distances(identifier):
    teacher = teacher_of(identifier, 0.3)
    captions, codes = torch.tensor([2, 0]), torch.tensor([[1, 4], [3, 0]])
    books = identifier.code_vectors().view(2, 5, 4)
    targets = teacher.tokens(codes)
    for level, soft in enumerate(teacher.distributions(captions, targets)):
        assert torch.equal(soft.tokens, teacher.backbone.level_tokens(level))
        for row, caption in enumerate(captions):
            rest = teacher.text_features[caption] @ identifier.network.latent.weight.detach().T
            rest = rest - sum((books[m][codes[row, m]] for m in range(level)), torch.zeros(4))
            expected = torch.softmax(-(books[level] - rest).square().sum(-1) / 2 / 0.3, 0)
            torch.testing.assert_close(soft.probabilities[row], expected)


def test_of_shorter_targets_it_says_the_same_of_the_levels_that_they_have(identifier):
    teacher = teacher_of(identifier, 0.3)
    captions, targets = torch.tensor([2, 0]), teacher.tokens(torch.tensor([[1, 4], [3, 0]]))
    (first,), (expected, _) = (teacher.distributions(captions, given) for given in (targets[:, :1], targets))
    assert torch.equal(first.tokens, expected.tokens) and torch.equal(first.probabilities, expected.probabilities)


def test_of_the_first_levels_alone_it_says_the_same(identifier):
    captions, codes = torch.tensor([2, 0]), torch.tensor([[1, 4], [3, 0]])
    whole, some = teacher_of(identifier, 0.3), teacher_of(identifier, 0.3, levels=1)
    targets = whole.tokens(codes)
    assert torch.equal(some.tokens(codes[:, :1]), targets[:, :1])
    (first,), (expected, _) = (one.distributions(captions, targets) for one in (some, whole))
    assert torch.equal(first.tokens, expected.tokens) and torch.equal(first.probabilities, expected.probabilities)
    assert some.write(captions).shape == (2, 1)


def test_a_sure_teacher_writes_the_captions_own_codes(identifier):
    teacher = teacher_of(identifier, 1e-4)
    captions = torch.arange(3)
    expected = identifier.network.encode(teacher.text_features, beam=1)
    assert torch.equal(teacher.write(captions), expected)


def test_what_it_writes_has_its_own_frequencies(identifier):
    teacher = teacher_of(identifier, 0.3)
    torch.manual_seed(0)
    codes = teacher.write(torch.zeros(4000, dtype=torch.long))
    first = teacher.distributions(torch.tensor([0]), teacher.tokens(codes[:1]))[0].probabilities[0]
    torch.testing.assert_close(torch.bincount(codes[:, 0], minlength=5) / 4000, first, atol=0.03, rtol=0)


def test_schemes_that_cannot_hesitate_are_refused(identifier):
    class Wordless(RQIdentifier):
        vokens = Vokens()

    with pytest.raises(UsageError, match=r"loss\.distill"):
        teacher_of(Wordless(identifier.config), 0.1)
