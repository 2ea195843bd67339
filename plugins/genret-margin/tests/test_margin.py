"""genret's conformance kit, and torch's own hinge losses."""

from pathlib import Path

import genret_margin
import pytest
import torch
import torch.nn.functional as F
from genret_margin.loss import MarginLoss

from genret import GeneratorBatch
from genret.testing import check_loss, check_plugin, check_recipe


def batch(scores, positive):
    return GeneratorBatch(torch.empty(0), torch.empty(0), [], scores, positive)


def test_it_registers():
    assert check_plugin(genret_margin) == ["loss margin"]


@pytest.mark.parametrize("negatives", ["hardest", "all"])
def test_it_keeps_the_contract(negatives):
    check_loss(MarginLoss, negatives=negatives, margin=2.0)


def test_its_recipe_is_sound():
    pytest.importorskip("genret_starter", reason="recipes/avg.yaml trains on the pictures of genret-starter")
    recipe = Path(__file__).parents[1] / "recipe.yaml"
    avg = recipe.parents[2] / "recipes" / "avg.yaml"
    if not avg.is_file():
        pytest.skip("this is no checkout of genret: recipes/avg.yaml is not there")
    check_recipe([avg, recipe], genret_margin)


@pytest.mark.parametrize("margin", [0.5, 3.0])
def test_one_rival_is_torchs_margin_ranking_loss(margin):
    scores = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    positive = torch.randint(2, (50,), generator=torch.Generator().manual_seed(1))
    right, negative = scores.gather(1, positive[:, None])[:, 0], scores.gather(1, 1 - positive[:, None])[:, 0]
    expected = F.margin_ranking_loss(right, negative, torch.ones(50), margin=margin)
    for negatives in ("hardest", "all"):
        loss = MarginLoss(MarginLoss.Config(margin=margin, negatives=negatives))
        torch.testing.assert_close(loss(batch(scores, positive)), expected)


def test_all_rivals_are_torchs_multi_margin_loss():
    scores = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    positive = torch.randint(5, (40,), generator=torch.Generator().manual_seed(1))
    loss = MarginLoss(MarginLoss.Config(negatives="all"))
    # torch divides by all classes, the right one among them
    torch.testing.assert_close(loss(batch(scores, positive)), F.multi_margin_loss(scores, positive) * 5 / 4)


def test_candidates_that_are_not_there_count_for_nothing():
    scores = torch.tensor([[-1.0, -torch.inf, -1.5], [-2.0, -torch.inf, -torch.inf]], requires_grad=True)
    for negatives in ("hardest", "all"):
        value = MarginLoss(MarginLoss.Config(negatives=negatives))(batch(scores, torch.tensor([0, 0])))
        assert value.item() == pytest.approx(0.5 / 2), "the second query has no negative at all"
        (gradient,) = torch.autograd.grad(value, scores)
        assert torch.equal(gradient, torch.tensor([[-0.5, 0.0, 0.5], [0.0, 0.0, 0.0]]))
