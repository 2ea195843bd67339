"""Each loss against its equation, computed by hand in loops."""

from __future__ import annotations

import math

import pytest
import torch

from genret.api import GeneratorBatch, SoftTarget, TokenizerBatch
from genret.components.losses.generator import DistillLoss, RankLoss, TokenLoss
from genret.components.losses.tokenizer import AlignLoss, CommitLoss, ContrastiveAlignLoss, DiversityLoss, ReconLoss


@pytest.fixture
def batch() -> TokenizerBatch:
    torch.manual_seed(0)
    return TokenizerBatch(
        image=torch.randn(3, 4),
        text=torch.randn(3, 4),
        latent=torch.randn(3, 5, requires_grad=True),
        partial=torch.randn(3, 2, 5, requires_grad=True),
        reconstruction=torch.randn(3, 4, requires_grad=True),
    )


def of(logits: torch.Tensor, columns: list[torch.Tensor | None]) -> list[torch.Tensor]:
    """(B, L, V) → per position the logits of its columns, as a batch has them"""
    return [logits[:, place] if own is None else logits[:, place, own] for place, own in enumerate(columns)]


def squared(a: torch.Tensor, b: torch.Tensor) -> float:
    return sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True))


def test_tokenizer_losses_follow_equations_3_to_5(batch):
    rows = range(3)
    recon = sum(squared(batch.image[i], batch.reconstruction[i]) for i in rows) / 3
    align = sum(squared(batch.text[i], batch.reconstruction[i]) for i in rows) / 3
    commit = sum(squared(batch.latent[i], batch.partial[i, d]) for i in rows for d in range(2)) / 3
    assert float(ReconLoss()(batch).detach()) == pytest.approx(recon, rel=1e-5)
    assert float(AlignLoss()(batch).detach()) == pytest.approx(align, rel=1e-5)
    assert float(CommitLoss()(batch).detach()) == pytest.approx(commit, rel=1e-5)


def test_the_commit_loss_stops_the_gradient_at_the_codes(batch):
    CommitLoss()(batch).backward()
    assert batch.partial.grad is None and batch.latent.grad is not None


def test_contrastive_align_is_info_nce_in_both_directions(batch):
    image = torch.nn.functional.normalize(batch.reconstruction.detach(), dim=-1)
    text = torch.nn.functional.normalize(batch.text, dim=-1)
    logits = image @ text.T / 0.2
    expected = 0.0
    for i in range(3):
        for row in (logits[i], logits[:, i]):
            expected -= float(logits[i, i]) - math.log(sum(math.exp(x) for x in row.tolist()))
    loss = ContrastiveAlignLoss(ContrastiveAlignLoss.Config(temperature=0.2))
    assert float(loss(batch).detach()) == pytest.approx(expected / 6, rel=1e-5)


def test_contrastive_align_has_no_rivals_among_images_with_the_same_caption(batch):
    batch = batch._replace(text=batch.text[[0, 0, 2]])
    image = torch.nn.functional.normalize(batch.reconstruction.detach(), dim=-1)
    similar = (image @ torch.nn.functional.normalize(batch.text, dim=-1).T / 0.07).tolist()
    rivals = {0: (0, 2), 1: (1, 2), 2: (0, 1, 2)}
    expected = 0.0
    for i, them in rivals.items():
        expected -= 2 * similar[i][i]
        expected += math.log(sum(math.exp(similar[i][j]) for j in them))
        expected += math.log(sum(math.exp(similar[j][i]) for j in them))
    assert float(ContrastiveAlignLoss()(batch).detach()) == pytest.approx(expected / 6, rel=1e-5)


def test_diversity_loss_is_that_of_vector_quantize_pytorch(batch):
    from vector_quantize_pytorch import VectorQuantize

    torch.manual_seed(0)
    options = {"codebook_diversity_loss_weight": 1.0, "codebook_diversity_temperature": 5.0, "commitment_weight": 0.0}
    reference = VectorQuantize(dim=4, codebook_size=8, learnable_codebook=True, ema_update=False, **options).train()
    x = torch.randn(20, 1, 4)  # it averages over batches, position by position
    *_, parts = reference(x, return_loss_breakdown=True)
    loss = DiversityLoss(DiversityLoss.Config(temperature=1 / 5))
    distance = -torch.cdist(x[:, 0], reference.codebook)  # its distances are not squared
    found = loss(batch._replace(assignments=[distance]))
    assert float(found.detach()) == pytest.approx(float(parts.codebook_diversity.detach()), rel=1e-5)


def test_diversity_loss_is_a_mean_over_levels_and_lowest_where_codes_are_used_evenly(batch):
    even, one = torch.eye(4) * 1e3, torch.tensor([[1e3, 0, 0, 0]] * 4)
    loss = DiversityLoss()
    assert float(loss(batch._replace(assignments=[even]))) == pytest.approx(-math.log(4))
    assert float(loss(batch._replace(assignments=[one]))) == pytest.approx(0)
    assert float(loss(batch._replace(assignments=[even, one]))) == pytest.approx(-math.log(4) / 2)


def test_diversity_loss_has_a_gradient_where_a_code_is_near_nothing(batch):
    level = torch.tensor([[0.0, -0.01, -1e6], [-0.02, 0.0, -1e6]], requires_grad=True)
    DiversityLoss()(batch._replace(assignments=[level])).backward()
    assert level.grad.isfinite().all() and level.grad.abs().sum() > 0


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_token_loss_follows_equation_7(smoothing):
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 10)
    targets = torch.tensor([[3, 6, 8], [4, 5, -1]])
    columns = [torch.tensor([3, 4]), torch.tensor([5, 6, 7]), None]
    expected = 0.0
    for row in range(2):
        for position, allowed in enumerate(columns):
            target = int(targets[row, position])
            if target < 0:
                continue
            names = range(10) if allowed is None else allowed.tolist()
            log_sum = math.log(sum(math.exp(float(logits[row, position, name])) for name in names))
            log_probs = {name: float(logits[row, position, name]) - log_sum for name in names}
            even = sum(log_probs.values()) / len(log_probs)
            expected -= (1 - smoothing) * log_probs[target] + smoothing * even
    loss = TokenLoss(TokenLoss.Config(label_smoothing=smoothing))(GeneratorBatch(of(logits, columns), targets, columns))
    assert float(loss) == pytest.approx(expected / 2, rel=1e-5)


def test_rank_loss_follows_equation_9_and_can_reach_zero():
    scores = torch.tensor([[-1.0, -2.0, float("-inf")], [-0.5, -40.0, -50.0]])
    positive = torch.tensor([1, 0])
    batch = GeneratorBatch(torch.empty(0), torch.empty(0), [], scores, positive)
    first = -math.log(math.exp(-2) / (math.exp(-1) + math.exp(-2)))
    assert float(RankLoss()(batch)) == pytest.approx(first / 2, rel=1e-5)
    easy = batch._replace(candidate_scores=scores[1:], positive=positive[1:])
    assert float(RankLoss()(easy)) < 1e-6


@pytest.mark.parametrize("whole", [False, True])
def test_distill_loss_is_the_cross_entropy_against_the_teacher(whole):
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 9)
    levels = [torch.tensor([3, 4, 5]), torch.tensor([6, 7, 8])]
    columns = [None, None] if whole else levels
    teacher = [SoftTarget(level, torch.rand(2, 3).softmax(-1)) for level in levels]
    expected = 0.0
    for row in range(2):
        for position, soft in enumerate(teacher):
            names = range(9) if whole else levels[position].tolist()
            log_sum = math.log(sum(math.exp(float(logits[row, position, name])) for name in names))
            for token, p in zip(soft.tokens.tolist(), soft.probabilities[row].tolist(), strict=True):
                expected -= p * (float(logits[row, position, token]) - log_sum)
    batch = GeneratorBatch(of(logits, columns), torch.zeros(2, 2), columns, teacher=teacher)
    assert float(DistillLoss()(batch)) == pytest.approx(expected / 2, rel=1e-5)
