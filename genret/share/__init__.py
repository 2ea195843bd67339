"""Sharing finished runs: push, pull, model cards; trackers of trainings. A plugin of genret."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genret import hookimpl
from genret.plugin.hookspecs import RegisterFunction

if TYPE_CHECKING:
    import typer


@hookimpl
def register_functions(register: RegisterFunction) -> None:
    register("tracked", "genret.share.trackers.tracking:tracked")
    """(run, log, ui) → context manager of the function by which a training logs its figures"""
    register("tracker:tensorboard", "genret.share.trackers.tensorboard:TensorBoard")
    """(run) → Tracker (genret/share/trackers/tracker.py), as are the following and those of plugins"""
    register("tracker:wandb", "genret.share.trackers.wandb:WeightsAndBiases")
    register("tracker:mlflow", "genret.share.trackers.mlflow:MLflow")
    register("tracker:trackio", "genret.share.trackers.trackio:Trackio")


@hookimpl
def register_commands(cli: typer.Typer) -> None:
    from genret.share.commands import pull, push

    for command in (push, pull):
        command.add(cli)
