"""The resources of a component while it is fitted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from genret.api.progress import Progress

if TYPE_CHECKING:
    import torch


class FitContext(NamedTuple):
    """The resources that a component receives while it is fitted."""

    seed: int
    device: torch.device
    checkpoint_dir: Path
    """Folder that an interrupted fit continues from; the stage removes it when the fit is done."""
    progress: Progress
    log: Callable[[dict[str, Any]], None]
    """Appends one line to the run's `metrics.jsonl`."""
