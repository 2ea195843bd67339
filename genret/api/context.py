"""What surrounds a component while it is fitted."""

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
    """What the outside world lends to a component while it is fitted."""

    seed: int
    """Whatever is random follows it: the same seed gives the same result."""
    device: torch.device
    """Where to compute; results are kept on the CPU."""
    checkpoint_dir: Path
    """Where an interrupted fit continues from; removed by the stage when the fit is done."""
    progress: Progress
    """Shows long work: `with context.progress(label, total) as bar: bar.advance(1)`."""
    log: Callable[[dict[str, Any]], None]
    """Adds one line to the run's `metrics.jsonl`."""
