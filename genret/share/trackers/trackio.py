"""trackio: its local database (TRACKIO_DIR). To look at it: trackio show."""

from __future__ import annotations

import os
from collections.abc import Mapping

from genret.run import Run


class Trackio:
    package = "trackio"
    install = "pip install 'genret[trackio]' && pip install --no-deps trackio"

    def __init__(self, run: Run):
        import trackio

        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "genret"),
            name=run.folder.name,
            config=run.recipe.canonical(),
            resume="allow",
            embed=False,
        )

    def log(self, stage: str, metrics: Mapping[str, float], step: int) -> None:
        self._run.log({f"{stage}/{name}": value for name, value in metrics.items()} | {f"{stage}/epoch": step})

    def close(self, finished: bool) -> None:
        self._run.finish()
