"""The gradient loop that every trained part shares: projection heads, tokenizer, generator.

It knows a module, a function that turns example indices into losses, and when to stop. It does not know what is
trained. A run that is killed at any moment and started again continues from its last checkpoint and ends with the same
bits: batch order is a function of (seed, epoch), and weights, optimizer and random state are all in the checkpoint.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from genret.api import FitContext, LoopOptions
from genret.errors import GenretError
from genret.kit.device import autocast

CHECKPOINT_SECONDS = 30.0

log = logging.getLogger(__name__)


class LoopResult(NamedTuple):
    epochs: int
    """Epochs that ran, early stopping counted."""
    loss: float
    """Mean loss of the last epoch."""
    best: float | None
    """Best development figure, None without `evaluate`; the module ends with the weights that reached it."""
    best_epoch: int


class _Progress:
    """Where a loop stands; all of it is in the checkpoint."""

    def __init__(self) -> None:
        self.epoch = 0
        self.batch = 0
        self.loss_sum = 0.0
        self.last_loss = math.nan
        self.best: float | None = None
        self.best_epoch = -1
        self.stale = 0
        self.done = False


def run(
    module: nn.Module,
    step: Callable[[Tensor, int], dict[str, Tensor]],
    num_examples: int,
    options: LoopOptions,
    context: FitContext,
    evaluate: Callable[[], float] | None = None,
    name: str = "train",
) -> LoopResult:
    """Trains `module` in place.

    `step(indices (B,), epoch)` returns named losses, "loss" the one that is descended. `evaluate()` looks at the
    development split, higher is better. `module` is already on `context.device`.
    """
    assert num_examples > 0, "nothing to train on"
    torch.manual_seed(context.seed)
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = _adamw(parameters, options)
    batches = math.ceil(num_examples / options.batch_size)
    total = options.epochs * batches
    state, best_weights = _Progress(), dict[str, Tensor]()
    checkpoint = _Checkpoint(context.checkpoint_dir / name)
    if checkpoint.exists():
        best_weights = checkpoint.load(module, optimizer, state, context.device)
        context.log(
            {"stage": name, "event": "resumed", "epoch": state.epoch, "step": state.epoch * batches + state.batch}
        )
    with context.progress(name, total) as bar:
        bar.advance(state.epoch * batches + state.batch)
        while state.epoch < options.epochs and not state.done:
            order = epoch_order(num_examples, context.seed, state.epoch)
            module.train()
            while state.batch < batches:
                indices = order[state.batch * options.batch_size : (state.batch + 1) * options.batch_size]
                now = state.epoch * batches + state.batch
                for group in optimizer.param_groups:
                    group["lr"] = options.lr * _rate(now, total, options)
                with autocast(context.device, options.bf16):
                    losses = step(indices, state.epoch)
                loss = losses["loss"]
                loss.backward()
                if options.clip_norm:
                    nn.utils.clip_grad_norm_(parameters, options.clip_norm)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                value = float(loss.detach())
                if not math.isfinite(value):
                    raise GenretError(
                        f"{name}: the loss became {value} at step {now}; lower the learning rate ({options.lr})"
                    )
                state.loss_sum += value
                state.batch += 1
                bar.advance(1)
                if state.batch < batches:
                    checkpoint.save_if_due(module, optimizer, state, best_weights)
            row: dict[str, Any] = {"stage": name, "epoch": state.epoch, "step": (state.epoch + 1) * batches}
            state.last_loss = state.loss_sum / batches
            row |= {key: float(value.detach()) for key, value in losses.items()} | {"loss": state.last_loss}
            state.epoch, state.batch, state.loss_sum = state.epoch + 1, 0, 0.0
            if evaluate is not None and (state.epoch % options.evaluate_every == 0 or state.epoch == options.epochs):
                row["dev"] = _look(module, evaluate, context.device)
                if state.best is None or row["dev"] > state.best:
                    state.best, state.best_epoch, state.stale = row["dev"], state.epoch - 1, 0
                    best_weights = {key: value.detach().clone() for key, value in _changing(module).items()}
                else:
                    state.stale += 1
                    state.done = bool(options.patience) and state.stale >= options.patience
            context.log(row)
            checkpoint.save_if_due(module, optimizer, state, best_weights)
    if best_weights:
        _restore(module, best_weights)
    module.eval()
    return LoopResult(state.epoch, state.last_loss, state.best, state.best_epoch)


def _adamw(parameters: list[nn.Parameter], options: LoopOptions) -> torch.optim.AdamW:
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": options.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=options.lr)


def epoch_order(num_examples: int, seed: int, epoch: int) -> Tensor:
    """(num_examples,) the order in which `run` goes through the examples in an epoch, for steps that read ahead."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(num_examples, generator=generator)


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
    """Evaluates without moving the training's random state."""
    module.eval()
    with _kept_random_state(device), torch.no_grad():
        return float(evaluate())


@contextmanager
def _kept_random_state(device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


class _Checkpoint:
    """`tensors.safetensors` and `state.json` in a folder that is replaced as a whole."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.due = time.monotonic() + CHECKPOINT_SECONDS

    def exists(self) -> bool:
        old = self.folder.with_suffix(".old")
        if old.exists() and not self.folder.exists():  # killed between the two renames of `save`
            old.replace(self.folder)
        if not (self.folder / "state.json").exists():
            return False
        try:  # a machine that lost its power may leave files that were never written out
            json.loads((self.folder / "state.json").read_text())
            with safe_open(self.folder / "tensors.safetensors", "pt"):
                return True
        except (OSError, ValueError, SafetensorError) as error:
            log.warning("the checkpoint %s is damaged (%s); this part starts anew", self.folder, error)
            shutil.rmtree(self.folder)
            return False

    def save_if_due(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, state: _Progress, best: dict[str, Tensor]
    ) -> None:
        if time.monotonic() < self.due:
            return
        start = time.monotonic()
        self.save(module, optimizer, state, best)
        cost = time.monotonic() - start
        self.due = time.monotonic() + max(
            CHECKPOINT_SECONDS, 20 * cost
        )  # at most 5 % of the time goes into checkpoints

    def save(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, state: _Progress, best: dict[str, Tensor]
    ) -> None:
        tensors = {f"module.{key}": value for key, value in _changing(module).items()}
        tensors |= {f"best.{key}": value for key, value in best.items()}
        packed = optimizer.state_dict()["state"]
        for index, slots in packed.items():
            tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in slots.items()}
        tensors["random.cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        new, old = self.folder.with_suffix(".new"), self.folder.with_suffix(".old")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        # clones: tied weights share storage, which safetensors rightly refuses
        save_file(
            {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()},
            new / "tensors.safetensors",
        )
        (new / "state.json").write_text(json.dumps(vars(state)))
        shutil.rmtree(old, ignore_errors=True)
        if self.folder.exists():
            self.folder.replace(old)
        new.replace(self.folder)
        shutil.rmtree(old, ignore_errors=True)

    def load(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, state: _Progress, device: torch.device
    ) -> dict[str, Tensor]:
        """Restores everything in place and returns the best weights so far."""
        tensors = load_file(self.folder / "tensors.safetensors")
        _restore(module, _under("module.", tensors))
        slots: dict[int, dict[str, Any]] = {}
        for key, value in _under("optimizer.", tensors).items():
            index, slot = key.split(".", 1)
            slots.setdefault(int(index), {})[slot] = value
        optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
        vars(state).update(json.loads((self.folder / "state.json").read_text()))
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random.cuda"])
        return {key: value.to(device) for key, value in _under("best.", tensors).items()}


def _changing(module: nn.Module) -> dict[str, Tensor]:
    """The module's state without frozen parameters: what a checkpoint has to hold, even beside a base of gigabytes."""
    frozen = {name for name, value in module.named_parameters(remove_duplicate=False) if not value.requires_grad}
    return {name: value for name, value in module.state_dict().items() if name not in frozen}


def _restore(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Puts back what `_changing` gave."""
    assert state.keys() == _changing(module).keys(), "the state of another module"
    module.load_state_dict(state, strict=False)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
