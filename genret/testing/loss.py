"""`check_loss`: a scalar with useful gradients and correctly declared needs, which does not break training.

B examples   D width   M levels   K codes per level   L tokens   b candidates   V vocabulary
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genret.api import GeneratorBatch, Loss, SoftTarget, TokenizerBatch
from genret.components.identifiers.rq import RQIdentifier
from genret.components.losses.generator import TokenLoss
from genret.components.losses.tokenizer import ReconLoss
from genret.testing.config import check_config, made
from genret.testing.world.corpus import context, make_world
from genret.testing.world.expect import Checked, same
from genret.testing.world.miniature import expect_better_than_chance, train_and_search

B, D, M, K, L, BEAMS, V = 6, 8, 3, 5, 4, 4, 20
STEPS = 60


def check_loss(loss: type[Loss], /, **options: Any) -> None:
    """Checks a loss with these options against its contract; `ContractError` says what to change.

    It is a finite scalar, the same each time, and lowered by gradient descent on its inputs; undeclared fields may be
    missing, and declared ones are used; padding gets no gradient; a miniature training with it beats chance.
    """
    check_config(loss, **options)
    checked, term = Checked(loss), made(loss, options)
    stage = getattr(loss, "stage", None)
    checked.expect(stage in ("tokenizer", "generator"), f"its stage is {stage!r}; say 'tokenizer' or 'generator'")
    world = _tokenizer_world() if stage == "tokenizer" else _generator_world()
    check_value(checked, term, world)
    check_needs(checked, term, world)
    if stage == "generator":
        check_pads(checked, term, world)
        check_half(checked, term, world)
    check_descent(checked, term, world)
    check_training(checked, term)


class Need(NamedTuple):
    """Fields of a batch that are set only if a loss declares them."""

    flag: str
    without: dict[str, Any]
    changed: Callable[[Any], dict[str, Any]]
    """The same fields with other content."""


class LossWorld(NamedTuple):
    """A full batch, its optional fields, and the fields that are learned."""

    batch: Any
    needs: tuple[Need, ...]
    learnt: tuple[str, ...]

    def given(self, term: Loss) -> Any:
        """The batch as the pipeline gives it to this loss: undeclared fields are missing."""
        missing = [need.without for need in self.needs if not getattr(term, need.flag)]
        return self.batch._replace(**{name: value for part in missing for name, value in part.items()})


def _tokenizer_world() -> LossWorld:
    generator = torch.Generator().manual_seed(0)

    def rows(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    image, text = (F.normalize(rows(B, D), dim=-1) for _ in range(2))
    distances = [-rows(B, K).square() for _ in range(M)]
    batch = TokenizerBatch(image, text, rows(B, D), rows(B, M, D), rows(B, D), distances)
    needs = (
        Need("needs_text", {"text": None}, lambda b: {"text": b.text.flip(0)}),
        Need("needs_assignments", {"assignments": ()}, lambda b: {"assignments": [3 * part for part in b.assignments]}),
    )
    return LossWorld(batch, needs, ("latent", "partial", "reconstruction", "assignments"))


def _generator_world() -> LossWorld:
    generator = torch.Generator().manual_seed(0)

    def rows(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    # three levels of five codes each, tokens 2 .. 16; the last example ends early
    columns: list[Tensor | None] = [torch.arange(2 + level * K, 2 + (level + 1) * K) for level in range(M)]
    columns.append(None)
    targets = torch.stack([2 + level * K + torch.arange(B) % K for level in range(M)] + [torch.ones(B)], 1).long()
    targets[-1, 2:] = -1
    scores = rows(B, BEAMS) - 4
    scores[0, -1] = -torch.inf
    teacher = [SoftTarget(column, rows(B, K).softmax(-1)) for column in columns if column is not None]
    batch = GeneratorBatch(
        [rows(B, V if own is None else K) for own in columns],
        targets,
        columns,
        scores,
        torch.arange(B) % 3,
        teacher,
        rows(B, L, V),
        -rows(B).square() - 1,
    )
    needs = (
        Need(
            "needs_candidates",
            {"candidate_scores": None, "positive": None},
            lambda b: {"candidate_scores": 1.5 * b.candidate_scores},
        ),
        Need(
            "needs_teacher",
            {"teacher": ()},
            lambda b: {"teacher": [SoftTarget(soft.tokens, soft.probabilities.flip(0)) for soft in b.teacher]},
        ),
        Need("needs_image_logits", {"image_logits": None}, lambda b: {"image_logits": b.image_logits.flip(0)}),
        Need("needs_captions", {"caption_log_probs": None}, lambda b: {"caption_log_probs": 2 * b.caption_log_probs}),
    )
    return LossWorld(batch, needs, ("logits", "candidate_scores", "image_logits", "caption_log_probs"))


# ------------------------------------------------------------------------------------------------ one batch
def check_value(checked: Checked, term: Loss, world: LossWorld) -> None:
    lacking = [need.flag for need in world.needs if not getattr(term, need.flag)]
    try:
        value = term(world.given(term))
    except (AssertionError, AttributeError, TypeError, IndexError, KeyError, ValueError) as error:
        try:
            term(world.batch)
        except Exception:
            with checked.doing("it was called with a batch"):
                raise error from None
        checked.fail(
            f"it fails with {type(error).__name__} ({error}) on a batch that has only what it declares; set the flag "
            f"of what it uses to True, one of: {', '.join(lacking)}"
        )
    checked.tensor(value, "its value", ())
    checked.expect(value.is_floating_point(), f"its value is {value.dtype}; return a floating-point scalar")
    with checked.doing("it was called again"):
        again = term(world.given(term))
    checked.expect(same(again, value), "it gives another value for the same batch; draw nothing at random in it")


def check_needs(checked: Checked, term: Loss, world: LossWorld) -> None:
    """Each declared field costs time in every step: a beam search or a forward pass."""
    value = term(world.given(term))
    for need in world.needs:
        if getattr(term, need.flag):
            with checked.doing(f"it was called with other content of what {need.flag} asks for"):
                other = term(world.given(term)._replace(**need.changed(world.batch)))
            checked.expect(
                not same(other, value),
                f"it declares {need.flag}, but does not look at it; set it to False: it costs time",
            )


def check_pads(checked: Checked, term: Loss, world: LossWorld) -> None:
    """Padding after the end of shorter identifiers gets no gradient."""
    batch = world.given(term)
    pads = batch.targets < 0
    for field in ("logits", "image_logits"):
        table = getattr(batch, field)
        if table is None:
            continue
        columns = table if isinstance(table, list) else table.unbind(1)
        changed: Any = [torch.where(pad[:, None], own.flip(-1), own) for pad, own in zip(pads.T, columns, strict=True)]
        if isinstance(table, Tensor):
            changed = torch.stack(changed, dim=1)
        checked.expect(
            same(term(batch._replace(**{field: changed})), term(batch)),
            f"its value changes with {field} where targets are -1; leave pads out (cross_entropy: ignore_index=-1)",
        )


def check_half(checked: Checked, term: Loss, world: LossWorld) -> None:
    """On GPUs the model computes in bfloat16."""
    batch = world.given(term)
    given = {name: getattr(batch, name) for name in world.learnt if getattr(batch, name) is not None}
    half = {
        name: [part.bfloat16() for part in value] if isinstance(value, list) else value.bfloat16()
        for name, value in given.items()
    }
    with checked.doing("it was called with logits in bfloat16"):
        value = term(batch._replace(**half))
    checked.tensor(value, "its value on bfloat16 logits", ())
    checked.expect(
        value.dtype == torch.float32, f"its value on bfloat16 logits is {value.dtype}; compute in float32 (.float())"
    )


def check_descent(checked: Checked, term: Loss, world: LossWorld) -> None:
    """Gradient descent on the model's outputs lowers it."""
    batch = world.given(term)
    leaves: dict[str, Any] = {}
    for name in world.learnt:
        value = getattr(batch, name)
        if isinstance(value, Tensor):
            leaves[name] = value.clone().requires_grad_()
        elif value:
            leaves[name] = [part.clone().requires_grad_() for part in value]
    flat = [leaf for value in leaves.values() for leaf in (value if isinstance(value, list) else [value])]
    batch = batch._replace(**leaves)
    value = term(batch)
    checked.expect(value.requires_grad, "its value has no gradient; compute it from the batch with torch, undetached")
    before = float(value.detach())
    optimizer = torch.optim.Adam(flat, lr=0.05)
    for _ in range(STEPS):
        optimizer.zero_grad()
        value = term(batch)
        value.backward()
        for leaf in flat:
            checked.expect(
                leaf.grad is None or not bool(leaf.grad.isnan().any()),
                "its gradient is not a number; mask -inf before you subtract or multiply",
            )
        optimizer.step()
    after = float(term(batch).detach())
    checked.expect(
        after < before,
        f"{STEPS} steps of gradient descent take it from {before:.4g} to {after:.4g}; let its gradient lower it",
    )


# ------------------------------------------------------------------------------------------------ a training
def check_training(checked: Checked, term: Loss) -> None:
    """A miniature training with this loss added to the default objective still beats chance."""
    world = make_world()
    identifier = RQIdentifier(
        RQIdentifier.Config.model_validate(
            {
                "codebook_size": 8,
                "num_levels": 3,
                "hidden_width": 16,
                "train": {"epochs": 3, "batch_size": 12, "lr": 1e-3},
            }
        )
    )
    tokenizer: Mapping[str, Loss] = {"recon": ReconLoss()}
    generator: Mapping[str, Loss] = {"token": TokenLoss()}
    if term.stage == "tokenizer":
        tokenizer = {**tokenizer, "it": term}
    else:
        generator = {**generator, "it": term}
    with tempfile.TemporaryDirectory() as folder, checked.doing("it was part of a miniature training"):
        identifier.fit(world.train, tokenizer, context(Path(folder)))
        recall = train_and_search(world.train, identifier, losses=generator, rank_every=4)
    advice = "It works against the plain objective; check its sign and scale"
    expect_better_than_chance(checked, len(world.train.features), recall, advice)
