"""What is wrong with the home folder, the disk, the plugins and the caches, and what helps: one sentence each."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from genret.errors import one_line
from genret.guide.doctor.runs import Fault
from genret.guide.installer import missing_packages
from genret.plugin.loading import Plugins
from genret.settings import Settings

LEAST_FREE = 10**9
"""Free space below which a training is likely to fail, in bytes."""


def faults_of(settings: Settings, plugins: Plugins) -> list[Fault]:
    """Faults of everything but the runs."""
    return [*_places(settings), *_plugins(settings, plugins), *_features(settings.features_dir)]


def _places(settings: Settings) -> Iterator[Fault]:
    """The folders that genret writes to: there (or to be made), writable, with space left."""
    places = {
        "GENRET_HOME": settings.home,
        "GENRET_FEATURES": settings.features,
        "GENRET_ARTIFACTS": settings.artifacts,
    }
    full = set[int]()
    for variable, place in places.items():
        if place is None:
            continue
        if place.exists() and not place.is_dir():
            yield Fault(
                f"{place} is a file where a folder is needed", f"set {variable} to a folder, or move the file away"
            )
            continue
        there = next((path for path in (place, *place.parents) if path.is_dir()), None)
        if there is None:
            yield Fault(f"there is no folder above {place}", f"set {variable} to a folder that can be made")
            continue
        try:
            with tempfile.TemporaryFile(dir=there) as file:
                file.write(b"\0" * 4096)
                file.flush()
        except OSError as error:
            if error.errno is not None and shutil.disk_usage(there).free >= LEAST_FREE:
                cure = f"change the rights of {there}, or set {variable} to a folder of yours"
                yield Fault(f"{there} cannot be written ({error.strerror})", cure)
                continue
        free, disk = shutil.disk_usage(there).free, there.stat().st_dev
        if free < LEAST_FREE and disk not in full:
            full.add(disk)
            what = f"the disk of {there} is {'full' if free < 4096 else f'nearly full: {free / 1e6:,.0f} MB are free'}"
            yield Fault(what, f"make room (genret doctor --clean removes caches), or set {variable} to another disk")


def _plugins(settings: Settings, plugins: Plugins) -> Iterator[Fault]:
    for failure in plugins.failures:
        file = Path(failure.source)
        cure = f"mend it, or move it out of {file.parent}" if file.is_file() else f"genret uninstall {failure.name}"
        yield Fault(
            f"the plugin '{failure.name}' ({failure.source}) is left out: {failure.reason}",
            f"{cure}; genret plugins shows where it fails",
        )
    for package, requirement in missing_packages(settings).items():
        what = f"the plugin package {package} was installed from {requirement}, but not in this environment"
        yield Fault(what, "genret install --missing")


def _features(folder: Path) -> Iterator[Fault]:
    for file in sorted(folder.glob("*.sqlite")) if folder.is_dir() else ():
        try:
            with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
                connection.execute("SELECT count(*) FROM facts").fetchall()
        except sqlite3.Error as error:
            yield Fault(
                f"the feature cache {file} is damaged ({one_line(error)})",
                "nothing need be done: it is made anew when it is next used; genret doctor --clean removes it",
            )
