"""Installs and removes plugins in the environment that genret runs in, by pip or, if that is missing, by uv.

Handles packages and folders, not hooks. Installed plugins are recorded in the home folder, so that a new environment
(after an upgrade of Python or of genret) can get them back.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, distribution, entry_points
from pathlib import Path
from typing import Any, NamedTuple

from genret.errors import GenretError, UnknownName, UsageError
from genret.settings import Settings

Say = Callable[[str], None]


class Wanted(NamedTuple):
    """Something to be installed."""

    requirement: str
    """A package as pip names it, or a folder."""
    package: str | None
    """The package's name, if it can be determined."""


def wanted(words: Iterable[str]) -> list[Wanted]:
    return [_folder(Path(word)) if _is_path(word) else Wanted(_no_option(word), _package_in(word)) for word in words]


def install(things: Sequence[Wanted], say: Say, editable: bool, upgrade: bool) -> None:
    """Raises `GenretError` if the installer fails; its output goes to `say`."""
    if editable and (packages := [thing.requirement for thing in things if not Path(thing.requirement).is_dir()]):
        raise UsageError(f"--editable is for folders, and '{packages[0]}' is none")
    flag = ["--editable"] if editable else []
    words = [word for thing in things for word in (*flag, thing.requirement)]
    say(f"Installing {', '.join(thing.requirement for thing in things)} ...")  # the installer itself tells faults only
    _run([*_installer("install"), *(["--upgrade"] if upgrade else []), *words], say)


def note_installed(things: Sequence[Wanted], settings: Settings) -> None:
    """Records the package for `missing_packages` in a later environment."""
    _note(noted_packages(settings) | {thing.package: thing.requirement for thing in things if thing.package}, settings)


def uninstall(names: Sequence[str], settings: Settings, say: Say) -> list[str]:
    """Removes packages by their own or their plugins' names; returns the packages."""
    packages = list(dict.fromkeys(_package_of(name, settings) for name in names))
    command = _installer("uninstall")
    if command[0] == sys.executable:
        command.append("--yes")
    _run([*command, *packages], say)
    _note({name: word for name, word in noted_packages(settings).items() if name not in packages}, settings)
    return packages


def noted_packages(settings: Settings) -> dict[str, str]:
    """The packages that `genret install` has installed, package → requirement, in this or an earlier environment."""
    try:
        noted = json.loads(_file(settings).read_text(encoding="utf-8"))
        return {str(package): str(requirement) for package, requirement in noted.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def missing_packages(settings: Settings) -> dict[str, str]:
    """The recorded packages that this environment lacks."""
    return {name: word for name, word in noted_packages(settings).items() if not _is_installed(name)}


def plugins_now(settings: Settings) -> dict[str, Any]:
    """The output of `genret plugins --json` in a new process, which sees the newly installed packages."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GENRET_")}
    environment["GENRET_HOME"] = str(settings.home)
    command = [sys.executable, "-m", "genret", "plugins", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise GenretError(f"it is installed, but genret no longer starts: {' '.join(done.stderr.split())[-300:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def package_of_source(source: str) -> str:
    """`genret-random 0.1.0` → `genret-random`"""
    return _plain(source.partition(" ")[0])


# ------------------------------------------------------------------------------------------------ pip or uv
def _installer(verb: str) -> list[str]:
    """The command that installs into this environment. uv's environments have no pip of their own."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", verb, "--quiet"]
    if (uv := os.environ.get("UV") or shutil.which("uv")) is not None:
        return [uv, "pip", verb, "--quiet", "--python", sys.executable]
    raise GenretError(
        f"neither pip nor uv is there to {verb} packages for {sys.executable}; "
        f"add pip with: {sys.executable} -m ensurepip"
    )


def _run(command: list[str], say: Say) -> None:
    said = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            said.append(line.rstrip())
            say(line.rstrip())
    if run.returncode:
        tool = "uv" if command[0] != sys.executable else "pip"
        errors = [line for line in said if line.lower().lstrip(" ×").startswith("error")]
        reason = f": {errors[-1].strip()}" if errors else ""
        raise GenretError(f"{tool} failed with exit code {run.returncode}{reason}")


# ------------------------------------------------------------------------------------------------ names
def _is_path(word: str) -> bool:
    if word.endswith(".py"):  # never look it up in an index
        return True
    return (
        (os.sep in word and "://" not in word and " @ " not in word)
        or word in (".", "..")
        or (Path(word) / "pyproject.toml").is_file()
    )


def _folder(path: Path) -> Wanted:
    path = path.expanduser().absolute()
    if path.suffix == ".py":
        raise UsageError(f"{path.name} is one file: copy it to <home>/plugins, or name it by --plugin {path}")
    if path.is_file():
        return Wanted(str(path), _plain(path.name.split("-")[0]) if path.suffix == ".whl" else None)
    if not path.exists():
        raise UsageError(f"there is no folder {path}")
    try:
        project = tomllib.loads((path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    except FileNotFoundError:
        raise UsageError(
            f"{path} has no pyproject.toml; name a plugin's folder, or begin one with: genret plugins new NAME"
        ) from None
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise UsageError(f"{path / 'pyproject.toml'} names no project ({error})") from None
    return Wanted(str(path), _plain(str(project["name"])) if "name" in project else None)


def _package_in(word: str) -> str | None:
    found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*(?=$|[\[<>=!~; @])", word)
    return None if found is None or "://" in word.partition(" @ ")[0] else _plain(found[0])


def _no_option(word: str) -> str:
    if word.startswith("-"):
        raise UsageError(f"'{word}' is no package; pip's and uv's own settings are taken from the environment")
    return word


def _package_of(name: str, settings: Settings) -> str:
    points = {point.name: point.dist.name for point in entry_points(group="genret") if point.dist is not None}
    if (file := settings.plugins_dir / f"{name}.py").is_file():
        raise UsageError(f"the plugin '{name}' is the file {file}; delete it")
    packages = {_plain(package) for package in points.values()} | set(noted_packages(settings))
    package = _plain(points.get(name, name))
    if package == "genret":
        raise UsageError("genret itself is no plugin; remove it with pip or uv")
    if package not in packages:
        raise UnknownName("plugin", name, {*points, *packages})
    if not _is_installed(package):
        raise UsageError(f"{package} is not installed in this environment")
    return package


def _is_installed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


def _plain(package: str) -> str:
    """Normalized for comparison, as in PEP 503."""
    return re.sub(r"[-_.]+", "-", package).lower()


def _file(settings: Settings) -> Path:
    return settings.plugins_dir / "installed.json"


def _note(packages: dict[str, str], settings: Settings) -> None:
    file = _file(settings)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(packages, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(file)
