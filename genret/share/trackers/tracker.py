"""What a tracker has to do. A plugin adds one by the hook `register_functions`, under the name `tracker:NAME`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Tracker(Protocol):
    """Made by calling what is registered with the `genret.Run` that is being trained.

    If that has an attribute `package`, the training does not begin without this package; `install` is the line that
    installs it.
    """

    def log(self, stage: str, metrics: Mapping[str, float], step: int) -> None:
        """Figures of `heads`, `tokenizer`, `generator` after an epoch; of `seconds` and `evaluation` at the end."""

    def close(self, finished: bool) -> None:
        """The training has ended; `finished`: with a run that can be searched."""
