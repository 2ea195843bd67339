"""The resources of a component while it is fitted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from genret.api.described import described
from genret.api.progress import Progress

if TYPE_CHECKING:
    import torch


@described
class FitContext(NamedTuple):
    """The resources that a component receives while it is fitted."""

    seed: int
    """Whatever is random follows it: the same seed gives the same result."""
    device: torch.device
    """Where to compute; results are kept on the CPU."""
    checkpoint_dir: Path
    """Folder that an interrupted fit continues from; the stage removes it when the fit is done."""
    progress: Progress
    """Shows long work: `with context.progress(label, total) as bar: bar.advance(1)`."""
    log: Callable[[dict[str, Any]], None]
    """Appends one line to the run's `metrics.jsonl`."""
