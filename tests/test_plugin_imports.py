"""What lies under plugins/ imports what is promised, and nothing else of genret: tests included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import genret
from genret import api

PLUGINS = Path(genret.__file__).parents[1] / "plugins"
PUBLIC = ("genret", "genret.api", "genret.kit", "genret.testing", "genret.toolbox")
"""docs/plugins.md, "What is promised". Of kit, testing and toolbox, the modules below them, too."""


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(module, name) of whatever is imported of genret, wherever it hides."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == "genret")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "genret":
            yield from ((str(node.module), alias.name) for alias in node.names)


def fault(module: str, name: str) -> str | None:
    if module == "genret" and name and name not in genret.__all__ and f"genret.{name}" not in PUBLIC:
        return f"genret does not export {name}"
    if module == "genret.api" and name and name not in api.__all__:
        return f"genret.api does not export {name}"
    if name.startswith("_"):
        return f"{name} is private"
    if module not in PUBLIC and not module.startswith(("genret.kit.", "genret.testing.", "genret.toolbox.")):
        return f"{module} is not public"
    return None


def test_plugins_import_public_names_alone() -> None:
    files = sorted(PLUGINS.rglob("*.py"))
    assert len(files) > 20
    found = [
        f"{file.relative_to(PLUGINS)}: {why}"
        for file in files
        for module, name in imports(ast.parse(file.read_text(encoding="utf-8")))
        if (why := fault(module, name)) is not None
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "from genret.errors import GenretError",
        "import genret.search.catalog",
        "def f():\n    from genret.components.identifiers.rq import RQIdentifier",
        "from genret import run_stages",
        "from genret.kit.loop import _rate",
        "from genret.api import loss",
    ],
)
def test_the_walk_finds_what_it_is_for(text: str) -> None:
    ((module, name),) = imports(ast.parse(text))
    assert fault(module, name)
