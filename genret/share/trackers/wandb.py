"""Weights & Biases: files in `<run>/wandb`. WANDB_MODE=offline sends nothing; `wandb sync` sends it later."""

from __future__ import annotations

import os
from collections.abc import Mapping

from genret.run import Run


class WeightsAndBiases:
    package = "wandb"
    install = "pip install 'genret[wandb]'"

    def __init__(self, run: Run):
        import wandb

        begun = (run.folder / "recipe.yaml").stat().st_mtime_ns  # the same when the training is resumed
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "genret"),
            name=run.folder.name,
            id=os.environ.get("WANDB_RUN_ID", f"genret-{begun}"),
            resume="allow",
            dir=str(run.folder),
            config=run.recipe.canonical(),
        )
        self._stages = set[str]()

    def log(self, stage: str, metrics: Mapping[str, float], step: int) -> None:
        if stage not in self._stages:
            self._stages.add(stage)
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/epoch")
        self._run.log({f"{stage}/epoch": step} | {f"{stage}/{name}": value for name, value in metrics.items()})

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)
