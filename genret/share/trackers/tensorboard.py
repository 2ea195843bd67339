"""TensorBoard: event files in `<run>/tensorboard`. To look at all runs: tensorboard --logdir <home>/runs."""

from __future__ import annotations

from collections.abc import Mapping

from genret.run import Run


class TensorBoard:
    package = "tensorboard"
    install = "pip install 'genret[tensorboard]'"

    def __init__(self, run: Run):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(run.folder / "tensorboard")
        self._writer.add_text("recipe", "".join(f"    {line}\n" for line in run.recipe.dump_yaml().splitlines()))

    def log(self, stage: str, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(f"{stage}/{name}", value, step)
        self._writer.flush()

    def close(self, finished: bool) -> None:
        self._writer.close()
