"""Waits for changes below folders: `genret index --watch`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event

from genret.errors import GenretError
from genret.kit.images import is_image_name, unreadable
from genret.pictures.ignored import FILE

QUIET_MS = 1_000
"""Changes that follow one another faster than this are one."""


def changes(paths: Sequence[Path], stop: Event | None = None) -> Iterator[None]:
    """One for each time that pictures below the paths have changed, or what is ignored; ends with Ctrl-C, or `stop`."""
    try:
        from watchfiles import Change, watch
    except ImportError as error:
        raise GenretError("--watch needs the package watchfiles: pip install 'genret[watch]'") from error

    def counts(change: Change, path: str) -> bool:
        """Also names without a suffix: folders that come and go, and pictures without one."""
        name = Path(path).name
        return name == FILE or not Path(path).suffix or is_image_name(name) or unreadable(name) is not None

    logging.getLogger("watchfiles.main").setLevel(logging.ERROR)  # it says in a line of its own that it was interrupted
    there = [path.expanduser() for path in paths if path.expanduser().exists()]
    if not there:
        raise GenretError(f"there is nothing to watch: {', '.join(map(str, paths))} cannot be found")
    for _ in watch(*there, watch_filter=counts, debounce=QUIET_MS, step=100, stop_event=stop, raise_interrupt=False):
        yield
