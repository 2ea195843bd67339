"""`genret.load`: a run by its folder, its name, or its address on the hub."""

from __future__ import annotations

from pathlib import Path

from genret import run as runs
from genret.api import Silent
from genret.run import Run
from genret.settings import load_settings
from genret.share.hub import PREFIX, HubSource
from genret.share.pull import pull_into


def load(run: str | Path) -> Run:
    """Opens a finished run: a directory, the name of one in `<home>/runs`, or `hub:owner/name[@revision]`.

    A run of the hub is pulled once for each commit, into `<home>/pulled`; with a full commit as its revision it is
    opened without network from then on. Models are loaded on first use. Raises `GenretError` in one sentence.
    """
    if not str(run).startswith(PREFIX):
        return runs.load(run)
    settings, source = load_settings(), HubSource(str(run))
    folder = settings.home / "pulled" / f"{source.repository.replace('/', '--')}--{source.revision}"
    if not (folder / "summary.json").is_file():
        pull_into(source, folder, settings, Silent())
    return runs.load(folder)
