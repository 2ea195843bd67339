"""Finds plugins, and remembers facts about them between two starts. Independent of hooks and components.

Three sources, in this order: entry points of group `genret` (installed packages), `<home>/plugins/*.py`, and files
named by `--plugin`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

from genret.kit.files import read_json
from genret.settings import Settings


class Found(NamedTuple):
    """A plugin that was found but is not imported yet."""

    name: str
    source: str
    """The package with its version, or the file."""
    load: Callable[[], Any]
    module: str
    """The name of the module that `load` imports."""


def find_plugins(settings: Settings) -> list[Found]:
    """Installed packages, then the home's files; each list sorted by name, so that every start has the same order."""
    return [*_installed(), *(one_file(path) for path in sorted(settings.plugins_dir.glob("*.py")))]


def one_file(path: Path) -> Found:
    return Found(path.stem, str(path), lambda: _run_file(path), f"genret_plugin_{path.stem}")


def _installed() -> list[Found]:
    found: dict[tuple[str, str], Found] = {}
    for point in sorted(entry_points(group="genret"), key=lambda point: point.name):
        source = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
        # a package can be found twice, e.g. as an egg-info beside its dist-info
        found.setdefault((point.name, point.value), Found(point.name, source, point.load, point.module))
    return list(found.values())


def _run_file(path: Path) -> Any:
    name = f"genret_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "the file ends in .py"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pydantic look up their module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class Memory:
    """Which plugins worked when they were last imported, and whether they add commands.

    `genret --help` need not import a working plugin without commands, which may import heavy libraries. A record is
    valid while the plugin's version and files are unchanged. All other plugins are imported.
    """

    def __init__(self, file: Path):
        self._file = file
        try:
            stored = read_json(file)
        except (OSError, ValueError):
            stored = {}
        self._facts: dict[str, Any] = stored if isinstance(stored, dict) else {}

    def adds_commands(self, found: Found, beside: Sequence[Found]) -> bool | None:
        """None: nothing is known of this version of the plugin, or not `beside` these others."""
        fact = self._facts.get(_key(found))
        if not isinstance(fact, dict) or fact.get("source") != found.source:
            return None
        if not {_key(other) for other in beside} <= set(fact.get("beside") or ()):
            return None
        files = fact.get("files")
        if not isinstance(files, dict) or any(_stamp(path) != stamp for path, stamp in files.items()):
            return None
        return bool(fact.get("commands"))

    def store(self, sound: Sequence[tuple[Found, bool]], beside: Sequence[Found]) -> None:
        """Stores (plugin, whether it adds commands) for the next start. This is optional: a full disk is no error.

        `beside`: all plugins that were found, working or not.
        """
        keys = sorted(_key(found) for found in beside)
        facts = {
            _key(found): {"source": found.source, "commands": commands, "files": _files(found), "beside": keys}
            for found, commands in sound
        }
        others = {key: fact for key, fact in self._facts.items() if not key.startswith(f"{sys.prefix}|")}
        if others | facts == self._facts:
            return
        if not self._file.parent.parent.is_dir():  # showing help must not create the home folder
            return
        partial = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(others | facts), encoding="utf-8")
            partial.replace(self._file)


def _key(found: Found) -> str:
    return f"{sys.prefix}|{found.name}|{found.module}"


def _files(found: Found) -> dict[str, Any]:
    """The files of the plugin's own package that its import executed."""
    top = found.module.partition(".")[0]
    modules = [module for name, module in list(sys.modules.items()) if name == top or name.startswith(f"{top}.")]
    paths = {path for module in modules if isinstance(path := getattr(module, "__file__", None), str)}
    return {path: _stamp(path) for path in sorted(paths)}


def _stamp(path: str) -> list[int] | None:
    try:
        facts = Path(path).stat()
    except OSError:
        return None
    return [facts.st_mtime_ns, facts.st_size]
