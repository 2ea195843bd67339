"""fsq against vector-quantize-pytorch, numpy's principal components and all codes one by one."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from vector_quantize_pytorch import FSQ

from genret import GenretError, Loss, TokenizerBatch
from genret.api import Corpus, FitContext, Silent
from genret.testing import check_identifier
from genret_fsq.identifier import FSQIdentifier, FSQTraining
from genret_fsq.network import FSQNetwork

torch.set_num_threads(1)


class ReconLoss(Loss):
    """‖v − v̂‖², the first term of the paper's Eqn. 3."""

    stage = "tokenizer"

    def __call__(self, batch: TokenizerBatch) -> torch.Tensor:
        return (batch.image - batch.reconstruction).square().sum(-1).mean()


class AlignLoss(Loss):
    """‖v_t − v̂‖² alone."""

    stage = "tokenizer"
    needs_text = True

    def __call__(self, batch: TokenizerBatch) -> torch.Tensor:
        return (batch.text - batch.reconstruction).square().sum(-1).mean()


def corpus(num: int = 300, width: int = 16) -> Corpus:
    generator = torch.Generator().manual_seed(0)
    spread = torch.linspace(2, 0.2, width)
    features = F.normalize(torch.randn(num, width, generator=generator) * spread, dim=-1)
    texts = F.normalize(features + 0.3, dim=-1)
    return Corpus([str(i) for i in range(num)], features, None, ["x"] * num, texts, torch.arange(num))


def fitted(folder: Path, images: Corpus, losses: Any = None, **options: Any) -> FSQIdentifier:
    identifier = FSQIdentifier(FSQIdentifier.Config(**({"levels": [4, 3], "num_levels": 2} | options)))

    context = FitContext(0, torch.device("cpu"), folder, Silent().progress, lambda row: None)
    identifier.fit(images, losses or {}, context)
    return identifier


@pytest.mark.parametrize("levels", [(8, 6, 5), (3,), (4, 7)])
def test_bounds_and_rounds_as_the_library_does(levels):
    torch.manual_seed(0)
    network, reference = FSQNetwork(16, levels, 2, 8), FSQ(list(levels))
    z = 2 * torch.randn(100, 2 * len(levels))
    points, codes = reference(z.view(100, 2, -1))
    assert network.nearest(z).equal(codes.long())
    torch.testing.assert_close(network.quantize(z), points.flatten(1))
    rounded = (network.bounded(z) * network.steps).round() / network.steps
    torch.testing.assert_close(rounded, points.flatten(1))
    assert network.squared_distances(network.bounded(z)).argmin(-1).equal(codes.long())
    torch.testing.assert_close(network.points(codes.long()), points.flatten(1))
    if len(set(levels)) == 1:
        grid = network.grid.flatten().sort().values
        torch.testing.assert_close(grid.diff(), torch.full_like(grid[1:], float(grid[1] - grid[0])))


def test_starts_as_principal_components_used_evenly(tmp_path):
    train = corpus(1000)
    network = fitted(tmp_path, train).network
    centered = (train.features - train.features.mean(0)).numpy()
    _, sizes, directions = np.linalg.svd(centered, full_matrices=False)
    expected = centered @ directions[:4].T / (sizes[:4] / 1000**0.5)
    found = (network.latent(train.features) + network.shift).detach().numpy() / 0.8
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-3)
    for codes in network.nearest(network.latent(train.features)).T:
        assert codes.bincount(minlength=12).min() > 1000 / 12 / 4


def test_the_way_back_is_least_squares(tmp_path):
    train = corpus(500)
    network = fitted(tmp_path, train).network
    points = network(train.features).quantized.detach().numpy()
    design = np.hstack([points, np.ones((500, 1))])
    best = design @ np.linalg.lstsq(design, train.features.numpy(), rcond=None)[0]
    np.testing.assert_allclose(network.linear(torch.from_numpy(points)).detach().numpy(), best, atol=1e-4)


def test_training_follows_the_losses(tmp_path):
    train = corpus()
    training = FSQTraining(epochs=30, batch_size=100, lr=3e-3)
    plain = fitted(tmp_path / "a", train)
    trained = fitted(tmp_path / "b", train, {"recon": ReconLoss()}, train=training)
    aligned = fitted(tmp_path / "c", train, {"align": AlignLoss()}, train=training)

    def error(identifier: FSQIdentifier, target: torch.Tensor) -> float:
        return float((identifier.reconstruct(identifier.identify(train).codes) - target).square().sum(1).mean())

    assert error(trained, train.features) < error(plain, train.features)
    assert error(aligned, train.text_features) < error(trained, train.text_features)


@pytest.mark.parametrize("collisions", ["nearest-free", "balanced", "extra-symbol"])
def test_collisions(tmp_path, collisions):
    train = corpus(120)
    train = train._replace(features=train.features[:30].repeat(4, 1))
    identifier = fitted(tmp_path, train, levels=[4, 3], collisions=collisions)
    codes = identifier.identify(train).codes
    assert len(codes.unique(dim=0)) == 120 and codes.shape[1] == len(identifier.vokens.sizes)
    assert len(identifier.code_vectors()) == identifier.vokens.num_symbols


def test_alternatives_are_all_codes_by_their_distance(tmp_path):
    train = corpus(5)
    identifier = fitted(tmp_path, train)
    bounded = identifier._bounded(train.features)
    found = identifier._distances(bounded).nearest(torch.arange(5), 1000)
    every = torch.tensor(list(itertools.product(range(12), repeat=2)))
    far = torch.cdist(bounded, identifier.network.points(every)).square()
    assert found.shape == (5, 144, 2)
    own = (identifier.network.points(found.flatten(0, 1)).view(5, 144, -1) - bounded[:, None]).square().sum(-1)
    torch.testing.assert_close(own, far.sort(1).values)


def test_too_many_dimensions_and_codes_are_explained(tmp_path):
    with pytest.raises(GenretError, match="fsq rounds 20 dimensions"):
        fitted(tmp_path, corpus(), num_levels=10)
    with pytest.raises(ValueError, match="at most 65,536"):
        FSQIdentifier.Config(levels=[64, 64, 64])
    with pytest.raises(GenretError, match="no usable identifier model"):
        FSQIdentifier().load(tmp_path)


def test_the_contract():
    check_identifier(FSQIdentifier, levels=[4, 3], num_levels=2, train={"epochs": 1})
