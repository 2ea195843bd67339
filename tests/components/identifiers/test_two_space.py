"""two-space against residual-kmeans of each space alone, and its guidance against distances in the compared one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from genret.api import Corpus, FitContext
from genret.components.identifiers.residual_kmeans import ResidualKMeansIdentifier
from genret.components.identifiers.two_space import TwoSpaceIdentifier

HALF = 0.5**0.5


def unit(rows: int, width: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def corpus(features: torch.Tensor) -> Corpus:
    return Corpus([str(row) for row in range(len(features))], features)


def fitted(identifier: Any, features: torch.Tensor) -> Any:
    nothing: Any = None
    identifier.fit(corpus(features), {}, FitContext(0, torch.device("cpu"), Path(), nothing, lambda row: None))
    return identifier


@pytest.fixture(scope="module")
def spaces() -> tuple[torch.Tensor, torch.Tensor]:
    return unit(300, 8, 1), unit(300, 8, 2)


@pytest.fixture(scope="module")
def identifier(spaces: tuple[torch.Tensor, torch.Tensor]) -> TwoSpaceIdentifier:
    config = TwoSpaceIdentifier.Config(codebook_size=16, num_levels=3, reader_levels=2, kmeans_iters=5)
    made: TwoSpaceIdentifier = fitted(TwoSpaceIdentifier(config), HALF * torch.cat(spaces, dim=1))
    return made


def test_each_space_is_quantized_as_if_it_were_alone(identifier, spaces):
    options = {"codebook_size": 16, "kmeans_iters": 5}
    compared, read = (
        fitted(ResidualKMeansIdentifier(ResidualKMeansIdentifier.Config(num_levels=levels, **options)), HALF * space)
        for space, levels in zip(spaces, (3, 2), strict=True)
    )
    codes = identifier.identify(corpus(HALF * torch.cat(spaces, dim=1))).codes
    assert identifier.vokens.sizes == (16,) * 5
    assert torch.equal(codes[:, :2], read.identify(corpus(HALF * spaces[1])).codes)
    assert torch.equal(codes[:, 2:], compared.identify(corpus(HALF * spaces[0])).codes)
    alone = read.code_probabilities(HALF * spaces[1], codes[:, :2], 0.05)
    both = identifier.code_probabilities(HALF * torch.cat(spaces, dim=1), codes[:, :2], 0.05)
    for one, other in zip(both, alone, strict=True):
        torch.testing.assert_close(one, other)


def test_guidance_sees_the_compared_space_alone(identifier, spaces):
    images = HALF * torch.cat(spaces, dim=1)
    query = torch.cat([unit(4, 8, 3), torch.zeros(4, 8)], dim=1)
    sums = identifier.additive(query)
    codes = identifier.identify(corpus(images)).codes
    points = sum(book[codes[:, level]] for level, book in enumerate(sums.books))
    written = sum(book[codes[:, level]] for level, book in enumerate(identifier.code_vectors().view(5, 16, 16)))
    torch.testing.assert_close(points, written[:, :8])
    assert not written[:, :8].equal(written[:, 8:])
    torch.testing.assert_close(sums.target, HALF * query[:, :8])
    assert identifier.additive(images).target.allclose(images[:, :8])  # a picture as the query


def test_one_codebook_for_two_spaces_is_refused():
    with pytest.raises(ValidationError, match="cannot share a codebook"):
        TwoSpaceIdentifier.Config(shared_codebook=True)
