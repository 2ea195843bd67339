"""The gradient loop that all trained parts share: projection heads, tokenizer, generator.

It receives a module, a function from example indices to losses, and stopping options; what is trained does not matter.
A run that is killed at any moment and started again continues from its last checkpoint and ends with the same bits:
batch order is a function of (seed, epoch), and weights, optimizer and random state are all in the checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from genret.api import FitContext, LoopOptions
from genret.errors import GenretError
from genret.kit.checkpoint import Checkpoint, Progress
from genret.kit.device import autocast


class LoopResult(NamedTuple):
    epochs: int
    """Number of epochs that ran, with early stopping."""
    loss: float
    """Mean loss of the last epoch."""
    best: float | None
    """Best development figure, None without `evaluate`. The module ends with the weights that reached it."""
    best_epoch: int


def run(
    module: nn.Module,
    step: Callable[[Tensor, int, int], dict[str, Tensor]],
    num_examples: int,
    options: LoopOptions,
    context: FitContext,
    evaluate: Callable[[], float] | None = None,
    name: str = "train",
) -> LoopResult:
    """Trains `module` in place.

    `step(indices (B,), epoch, number)` returns named losses; "loss" is minimized. `number` counts the optimizer's
    steps from 0 over all epochs. `evaluate()` measures the development split, higher is better. `module` is already on
    `context.device`.
    """
    assert num_examples > 0, "nothing to train on"
    torch.manual_seed(context.seed)
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = _adamw(parameters, options)
    num_batches = math.ceil(num_examples / options.batch_size)
    total = options.epochs * num_batches
    now = Progress()
    checkpoint = Checkpoint(context.checkpoint_dir / name, module, optimizer, now)
    resumed = checkpoint.load()
    done = now.epoch * num_batches + now.batch
    if resumed:
        context.log({"stage": name, "event": "resumed", "epoch": now.epoch, "step": done})
    with context.progress(name, total) as bar:
        bar.advance(done)
        while now.epoch < options.epochs and not now.done:
            module.train()
            for indices in epoch_order(num_examples, context.seed, now.epoch).split(options.batch_size)[now.batch :]:
                number = now.epoch * num_batches + now.batch
                with autocast(context.device, options.bf16):
                    losses = step(indices, now.epoch, number)
                losses["loss"].backward()
                if options.clip_norm:
                    nn.utils.clip_grad_norm_(parameters, options.clip_norm)
                for group in optimizer.param_groups:
                    group["lr"] = options.lr * _rate(number, total, options)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                value = float(losses["loss"].detach())
                if not math.isfinite(value):
                    bad = [term for term, one in losses.items() if term != "loss" and not bool(one.isfinite().all())]
                    of = f" ({', '.join(bad)})" if bad else ""
                    raise GenretError(
                        f"{name}: the loss{of} became {value} at step {number}; lower the learning rate ({options.lr})"
                    )
                now.loss_sum += value
                now.batch += 1
                bar.advance(1)
                if now.batch < num_batches:
                    checkpoint.save_if_due()
            row: dict[str, Any] = {"stage": name, "epoch": now.epoch, "step": (now.epoch + 1) * num_batches}
            row |= {key: float(value.detach()) for key, value in losses.items()}
            row["loss"] = now.last_loss = now.loss_sum / num_batches
            now.epoch, now.batch, now.loss_sum = now.epoch + 1, 0, 0.0
            if evaluate is not None and (now.epoch % options.evaluate_every == 0 or now.epoch == options.epochs):
                row["dev"] = figure = _look(module, evaluate, context.device)
                if now.best is None or figure > now.best:
                    now.best, now.best_epoch, now.stale = figure, now.epoch - 1, 0
                    checkpoint.keep_best()
                else:
                    now.stale += 1
                    now.done = 0 < options.patience <= now.stale
            context.log(row)
            checkpoint.save_if_due()
    checkpoint.restore_best()
    module.eval()
    return LoopResult(now.epoch, now.last_loss, now.best, now.best_epoch)


def epoch_order(num_examples: int, seed: int, epoch: int) -> Tensor:
    """(num_examples,) the order of the examples in an epoch of `run`, for steps that prefetch."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(num_examples, generator=generator)


def _adamw(parameters: list[nn.Parameter], options: LoopOptions) -> torch.optim.AdamW:
    matrices = {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.weight_decay}
    vectors = {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}
    return torch.optim.AdamW([group for group in (matrices, vectors) if group["params"]], lr=options.lr)


def _rate(step: int, total: int, options: LoopOptions) -> float:
    """The factor of the peak rate at `step` of `total`."""
    warmup = math.ceil(options.warmup_fraction * total)
    if step < warmup:
        return (step + 1) / warmup
    if options.schedule == "constant":
        return 1.0
    done = (step - warmup) / max(1, total - warmup)
    return 1.0 - done if options.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


def _look(module: nn.Module, evaluate: Callable[[], float], device: torch.device) -> float:
    """Evaluates without changing the training's random state."""
    module.eval()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        return float(evaluate())
