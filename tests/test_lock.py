"""constraints.txt names every package that the commands of the README bring, so that they mean the same later."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
OF_EVERY_ENVIRONMENT = {"setuptools", "pip"}
"""What `pip freeze` never lists."""


def locked() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): release for name, release in pairs}


def brought(requirements: list[Requirement]) -> set[str]:
    """All that these need on this machine, themselves included."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(one.name, frozenset(one.extras)) for one in requirements]
    while waiting:
        name, extras = waiting.pop()
        if (key := (canonicalize_name(name), extras)) in seen:
            continue
        seen.add(key)
        for line in importlib.metadata.requires(name) or ():
            one = Requirement(line)
            if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                waiting.append((one.name, frozenset(one.extras)))
    return {name for name, _ in seen}


def test_all_that_the_readmes_commands_bring_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    here = [Requirement(line) for line in project["dependencies"] + project["optional-dependencies"]["dev"]]
    here += [Requirement("genret-starter[larger]")]
    needed = brought([one for one in here if one.marker is None or one.marker.evaluate()])
    assert {"torch", "pytest", "sqlalchemy"} <= needed
    others = {name for name in needed - OF_EVERY_ENVIRONMENT if not name.startswith("genret")}
    assert others <= set(locked()), f"missing in constraints.txt: {sorted(others - set(locked()))}"


def test_both_commands_of_the_readme_install_from_it() -> None:
    installs = re.findall(r"pip install .*", (ROOT / "README.md").read_text(encoding="utf-8"))
    blocks = [line for line in installs if "-e ." in line or "-e '.[dev]'" in line]
    assert len(blocks) == 2 and all("-c constraints.txt" in line for line in blocks)


def test_the_tools_name_folders_that_there_are() -> None:
    text = (ROOT / "tools" / "newest").read_text(encoding="utf-8")
    named = re.findall(r"\btests/[\w/]+", text)
    assert named and all((ROOT / name).is_dir() for name in named), named
    for tool in ("lock", "newest"):
        subprocess.run(["bash", "-n", ROOT / "tools" / tool], check=True)
