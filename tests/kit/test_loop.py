"""The shared gradient loop: exact resume, early stopping, schedules."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from genret.api import FitContext, LoopOptions, Silent
from genret.errors import GenretError
from genret.kit import checkpoint, loop


class Killed(Exception):
    pass


class Job:
    """A regression with dropout (so that random state matters) that records which examples it saw."""

    def __init__(self, folder: Path, kill_at: set[int] = frozenset()):
        torch.manual_seed(7)
        self.x, self.y = torch.randn(50, 4), torch.randn(50, 1)
        self.module = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.BatchNorm1d(16), nn.Linear(16, 1))
        self.seen: list[list[int]] = []
        self.numbers: list[int] = []
        self.rows: list[dict] = []
        self.kill_at = kill_at
        self.context = FitContext(3, torch.device("cpu"), folder, Silent().progress, self.rows.append)

    def step(self, indices: torch.Tensor, epoch: int, number: int) -> dict[str, torch.Tensor]:
        if len(self.seen) in self.kill_at:
            raise Killed
        self.seen.append(indices.tolist())
        self.numbers.append(number)
        return {"loss": (self.module(self.x[indices]) - self.y[indices]).square().mean()}

    def dev(self) -> float:
        torch.rand(3)  # a look must not move the training's random state
        return -float((self.module(self.x) - self.y).square().mean())

    def run(self, **options):
        chosen = LoopOptions(**({"epochs": 4, "batch_size": 8, "bf16": False} | options))
        return loop.run(self.module, self.step, 50, chosen, self.context, self.dev, name="job")


@pytest.fixture(autouse=True)
def checkpoint_after_every_step(monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: 0.0)  # so that cost never delays the next checkpoint


def test_killed_twice_within_an_epoch_and_resumed_equals_never_stopped(tmp_path):
    straight = Job(tmp_path / "straight")
    expected = straight.run()
    seen: list[list[int]] = []
    numbers: list[int] = []
    for kill in ({9}, {2}, set()):  # steps 9 and 11 both lie in the second epoch of 7 steps
        part = Job(tmp_path / "stopped", kill)
        try:
            result = part.run()
        except Killed:
            result = None
        seen += part.seen
        numbers += part.numbers
    assert seen == straight.seen and numbers == straight.numbers == list(range(4 * 7))
    assert result == expected
    for key, value in straight.module.state_dict().items():
        assert torch.equal(value, part.module.state_dict()[key]), key
    assert not list(tmp_path.rglob("*.pt")) and not list(tmp_path.rglob("*.pkl"))


def test_frozen_weights_are_in_no_checkpoint_and_stay_as_they_are(tmp_path):
    def job(folder: str, kill_at: set[int]) -> Job:
        part = Job(tmp_path / folder, kill_at)
        part.module[0].requires_grad_(False)
        return part

    straight, killed, resumed = job("straight", set()), job("stopped", {9}), job("stopped", set())
    frozen = straight.module[0].weight.clone()
    expected = straight.run()
    with pytest.raises(Killed):
        killed.run()
    stored = load_file(tmp_path / "stopped" / "job" / "tensors.safetensors")
    names = {name for name in stored if name.startswith(("module.", "best."))}
    assert "module.3.weight" in names and "module.2.running_mean" in names and "best.3.bias" in names
    assert not [name for name in names if name.split(".")[1] == "0"]
    assert resumed.run() == expected
    for key, value in straight.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[key]), key
    assert torch.equal(resumed.module[0].weight, frozen)


def test_a_kill_between_the_renames_of_a_checkpoint_loses_nothing(tmp_path):
    straight = Job(tmp_path / "straight")
    straight.run()
    first = Job(tmp_path / "stopped", {9})
    with pytest.raises(Killed):
        first.run()
    (tmp_path / "stopped" / "job").rename(tmp_path / "stopped" / "job.old")
    second = Job(tmp_path / "stopped")
    second.run()
    assert first.seen + second.seen == straight.seen


def test_every_example_once_an_epoch_in_a_new_order(tmp_path):
    job = Job(tmp_path)
    job.run(epochs=2)
    first, second = (list(chain(*batches)) for batches in (job.seen[:7], job.seen[7:]))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second


def test_the_best_weights_are_kept_and_patience_ends_the_run(tmp_path):
    job = Job(tmp_path)
    figures = iter([1.0, 5.0, 4.0, 3.0, 2.0, 9.0])
    snapshots = []

    def dev() -> float:
        snapshots.append({k: v.clone() for k, v in job.module.state_dict().items()})
        return next(figures)

    job.dev = dev
    result = job.run(epochs=6, patience=2)
    assert (result.epochs, result.best, result.best_epoch) == (4, 5.0, 1)
    for key, value in job.module.state_dict().items():
        assert torch.equal(value, snapshots[1][key])


def test_the_rate_rises_and_falls_as_named():
    options = LoopOptions(warmup_fraction=0.1, schedule="linear")
    rates = [loop._rate(step, 100, options) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[9] == 1.0 and rates[-1] == pytest.approx(1 / 90)
    assert loop._rate(55, 100, options.model_copy(update={"schedule": "cosine"})) == pytest.approx(0.5)
    assert loop._rate(99, 100, options.model_copy(update={"schedule": "constant"})) == 1.0


def test_a_diverging_run_ends_with_one_sentence(tmp_path):
    job = Job(tmp_path)
    job.y = job.y * float("nan")
    with pytest.raises(GenretError, match="lower the learning rate"):
        job.run()


@pytest.mark.parametrize("state", ["[]", "3", '"x"', "{}", '{"epoch": 1}', "[" * 100_000, "null"])
def test_a_checkpoint_without_a_position_is_passed_over(tmp_path, state, caplog):
    straight = Job(tmp_path / "straight").run()
    first = Job(tmp_path / "stopped", {9})
    with pytest.raises(Killed):
        first.run()
    (tmp_path / "stopped" / "job" / "state.json").write_text(state)
    again = Job(tmp_path / "stopped")
    assert again.run() == straight and again.numbers[0] == 0, "it begins anew"
    assert "is damaged" in caplog.text
