"""Targets: who may be drawn for a caption, and how often."""

from __future__ import annotations

import torch

from genret.api import Corpus, Identifiers
from genret.recipe.schema import TrainOptions
from genret.train.targets import Targets, dense_neighbours, make_targets, mix


class Signs:
    """One code per image: the quadrant of its vector."""

    def identify(self, corpus: Corpus) -> Identifiers:
        return Identifiers(torch.arange(len(corpus.features)), codes=(corpus.features > 0).long())


def corpus() -> Corpus:
    torch.manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(6, 4), dim=-1)
    views = torch.stack([features, -features], dim=1)
    owners = torch.arange(6).repeat_interleave(2)
    texts = torch.nn.functional.normalize(torch.randn(12, 4), dim=-1)
    return Corpus([str(i) for i in range(6)], features, views, ["x"] * 12, texts, owners)


def test_plain_targets_are_the_own_identifiers():
    train = corpus()
    targets = make_targets(train, Signs(), TrainOptions())
    rows = targets.draw(torch.arange(12))
    assert torch.equal(targets.identifiers.codes[rows], (train.features > 0).long()[train.owners])
    assert torch.equal(targets.own.codes, (train.features > 0).long())


def test_views_and_noise_widen_the_choice_and_own_stays_own(tmp_path):
    train = corpus()
    options = TrainOptions(target_views=True, target_noise=0.3, target_samples=4)
    targets = make_targets(train, Signs(), options)
    assert targets.choices.shape == (12, 1 + 1 + 4)
    assert torch.equal(targets.identifiers.owners[targets.choices], train.owners[:, None].expand(-1, 6))
    assert torch.equal(targets.own.codes, (train.features > 0).long())
    torch.testing.assert_close(targets.weights.sum(1), torch.ones(12))
    targets.save(tmp_path)
    again = Targets.load(tmp_path)
    assert torch.equal(again.choices, targets.choices) and torch.equal(
        again.identifiers.codes, targets.identifiers.codes
    )
    assert again.num_own == targets.num_own


def test_neighbours_are_the_softmax_of_the_nearest():
    train = corpus()
    found = dense_neighbours(train.text_features, train.features, 3, 0.1)
    for caption in range(12):
        similarity = [float(train.text_features[caption] @ train.features[i]) for i in range(6)]
        nearest = sorted(range(6), key=lambda i: -similarity[i])[:3]
        assert found.images[caption].tolist() == nearest
        expected = torch.softmax(torch.tensor([similarity[i] for i in nearest]) / 0.1, 0)
        torch.testing.assert_close(found.weights[caption], expected, atol=1e-5, rtol=1e-4)


def test_the_share_of_neighbours_is_what_was_asked():
    train = corpus()
    rows = torch.arange(6)[:, None]
    found = dense_neighbours(train.text_features, train.features, 2, 0.1)
    choices, weights = mix(train.owners, rows, found, 0.3)
    assert choices.shape == (12, 3)
    torch.testing.assert_close(weights[:, 0], torch.full((12,), 0.7))
    torch.testing.assert_close(weights.sum(1), torch.ones(12))
    targets = Targets(Identifiers(torch.arange(6), codes=torch.zeros(6, 1)), 6, choices, weights)
    torch.manual_seed(0)
    drawn = torch.stack([targets.draw(torch.arange(12)) for _ in range(4000)])
    own = (drawn == train.owners).float().mean(0)
    sole = torch.tensor([int(train.owners[t]) not in found.images[t].tolist() for t in range(12)])
    assert (own[sole] - 0.7).abs().max() < 0.05
