"""The complete state of a training in a folder: weights, optimizer, random state and position."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from genret.kit.files import read_json

SECONDS = 30.0
"""Minimum seconds between two checkpoints."""
COST_FACTOR = 20
"""The interval is at least this many times the duration of a save: saving takes at most 5 % of the time."""

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """The position of a training."""

    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    last_loss: float = math.nan
    best: float | None = None
    best_epoch: int = -1
    stale: int = 0
    """Evaluations since the best one"""
    done: bool = False


class Checkpoint:
    """`tensors.safetensors` and `state.json` in a folder that is replaced as a whole, with the best weights so far."""

    def __init__(self, folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress):
        self.folder, self.module, self.optimizer, self.progress = folder, module, optimizer, progress
        self.best: dict[str, Tensor] = {}
        self.due = time.monotonic() + SECONDS

    def keep_best(self) -> None:
        self.best = {key: value.detach().clone() for key, value in _changing(self.module).items()}

    def restore_best(self) -> None:
        """Loads the best weights into the module, if any were kept."""
        if self.best:
            _restore(self.module, self.best)

    def save_if_due(self) -> None:
        if (start := time.monotonic()) >= self.due:
            self.save()
            now = time.monotonic()
            self.due = now + max(SECONDS, COST_FACTOR * (now - start))

    def save(self) -> None:
        tensors = {f"module.{key}": value for key, value in _changing(self.module).items()}
        tensors |= {f"best.{key}": value for key, value in self.best.items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in slots.items()}
        tensors["random.cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        # clones: tied weights share storage, which safetensors does not accept
        tensors = {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()}
        new, old = self.folder.with_suffix(".new"), self.folder.with_suffix(".old")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        save_file(tensors, new / "tensors.safetensors")
        (new / "state.json").write_text(json.dumps(vars(self.progress)))
        shutil.rmtree(old, ignore_errors=True)
        if self.folder.exists():
            self.folder.replace(old)
        new.replace(self.folder)
        shutil.rmtree(old, ignore_errors=True)

    def load(self) -> bool:
        """Restores everything in place; False if there is no checkpoint."""
        old = self.folder.with_suffix(".old")
        if old.exists() and not self.folder.exists():  # killed between the two renames of `save`
            old.replace(self.folder)
        if not (self.folder / "state.json").exists():
            return False
        try:  # after a power failure, files may never have been written out
            progress = read_json(self.folder / "state.json")
            tensors = load_file(self.folder / "tensors.safetensors")
            if not isinstance(progress, dict) or progress.keys() != vars(self.progress).keys():
                raise ValueError("state.json is no position of a training")
        except (OSError, ValueError, SafetensorError) as error:
            log.warning("the checkpoint %s is damaged (%s); this part starts anew", self.folder, error)
            shutil.rmtree(self.folder)
            return False
        vars(self.progress).update(progress)
        _restore(self.module, _under("module.", tensors))
        self.best = _under("best.", tensors)
        slots: dict[int, dict[str, Any]] = {}
        for key, value in _under("optimizer.", tensors).items():
            index, slot = key.split(".", 1)
            slots.setdefault(int(index), {})[slot] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random.cuda"])
        return True


def _changing(module: nn.Module) -> dict[str, Tensor]:
    """The module's state without frozen parameters, so that a checkpoint stays small beside a large frozen base."""
    frozen = {name for name, value in module.named_parameters(remove_duplicate=False) if not value.requires_grad}
    return {name: value for name, value in module.state_dict().items() if name not in frozen}


def _restore(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Restores what `_changing` returned."""
    assert state.keys() == _changing(module).keys(), "the state of another module"
    module.load_state_dict(state, strict=False)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
