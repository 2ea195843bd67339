"""What every command receives: settings, plugins, and the user interface."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from genret.folders import finished_run
from genret.plugin.loading import Plugins
from genret.plugin.registry import Registries
from genret.settings import Settings

if TYPE_CHECKING:
    import typer

    from genret.api import Screen
    from genret.run import Run


class State:
    def __init__(self, settings: Settings, plugins: Plugins, debug: bool = False):
        self.settings = settings
        self.plugins = plugins
        self.debug = debug
        self.run: Path | None = None
        """The run directory being trained, for the hint after an interruption."""

    @property
    def registries(self) -> Registries:
        return self.plugins.registries

    def ui(self, json: bool = False) -> Screen:
        """`with state.ui() as ui`: inside, standard output is reserved for the result, all else goes to stderr."""
        return self.registries.function.get("terminal")(json)

    def open(self, run: Path | None) -> Run:
        """The finished run that `--run` names, else the newest; nothing of it is read yet."""
        folder = finished_run(run, self.settings)
        from genret.run import Run

        return Run(folder, self.registries, self.settings)

    def quiet_libraries(self) -> None:
        """Hides the libraries' messages, unless the settings enable them."""
        level = "debug" if self.debug else self.settings.log_level
        logging.basicConfig(level=level.upper(), format="%(name)s: %(message)s")
        logging.getLogger("PIL").setLevel(logging.INFO)  # it logs every chunk of every image
        if level in ("warning", "error"):
            warnings.simplefilter("ignore")
            os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
            os.environ.setdefault("TQDM_DISABLE", "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def state_of(context: typer.Context) -> State:
    state = context.obj
    assert isinstance(state, State)
    return state
