"""The shape of genret: who may import whom (the contracts in pyproject.toml), and how large things may grow.

Every law is also tried on a copy of the tree that breaks it, so that none passes because it looks at nothing.
"""

from __future__ import annotations

import ast
import graphlib
import importlib
import io
import re
import shutil
import subprocess
import sys
import tokenize
from collections import Counter
from pathlib import Path

import grimp
import pytest

import genret

ROOT = Path(genret.__file__).parent
PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
CORE = {"api", "catalog", "cli", "decode", "evaluate", "kit", "plugin", "recipe", "search", "train"}
"""Beside these folders, the files in genret/ itself."""
CORE_CODE_LINES = 7_000
FILE_LINES = 400
FOLDER_FILES = 15
CROWDED: set[str] = set()
"""Folders with more files, still to be mended."""
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """The contracts, held against the package `genret` in `root`, whatever is installed."""
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", program, "--no-cache", "--no-logo", str(PYPROJECT)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)


def circle(package: str) -> list[str] | None:
    """Modules that import one another in a ring. Imports for types alone never run, so they are left out."""
    graph = grimp.build_graph(package, exclude_type_checking_imports=True, cache_dir=None)
    try:
        graphlib.TopologicalSorter({m: graph.find_modules_directly_imported_by(m) for m in graph.modules}).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return None


def code_lines(source: str) -> int:
    """Without blank lines, comments and docstrings (those under fields, too)."""
    bodies = (getattr(node, "body", None) for node in ast.walk(ast.parse(source)))
    statements = [statement for body in bodies if isinstance(body, list) for statement in body]
    docstrings = {
        line
        for one in statements
        if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) and isinstance(one.value.value, str)
        for line in range(one.lineno, (one.end_lineno or one.lineno) + 1)
    }
    tokens = (token for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type not in LAYOUT)
    return len({line for token in tokens for line in range(token.start[0], token.end[0] + 1)} - docstrings)


def core_code_lines(root: Path) -> int:
    files = [*root.glob("*.py"), *(file for part in CORE for file in (root / part).rglob("*.py"))]
    return sum(code_lines(file.read_text(encoding="utf-8")) for file in files)


def long_files(root: Path) -> list[str]:
    return [str(file) for file in root.rglob("*.py") if file.read_text(encoding="utf-8").count("\n") > FILE_LINES]


def crowded_folders(root: Path) -> set[str]:
    folders = Counter(file.parent for file in root.rglob("*.py"))
    return {str(folder.relative_to(root)) for folder, files in folders.items() if files > FOLDER_FILES}


# ------------------------------------------------------------------------------------------------ genret as it is
def test_every_import_is_allowed():
    done = lint_imports(ROOT.parent)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_only_forwards():
    stub = ast.parse((ROOT / "__init__.pyi").read_text())
    forwarded = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    names = {alias.name for node in forwarded for alias in node.names}
    assert names | {"__version__"} == set(genret.__all__) and all(hasattr(genret, name) for name in genret.__all__)
    assert grimp.build_graph("genret", cache_dir=None).find_modules_directly_imported_by("genret") == set()
    assert {f"genret.{node.module}" for node in forwarded} == {
        "genret.api",
        "genret.errors",
        "genret.plugin.hookspecs",
        "genret.run",
        "genret.serve.client",
        "genret.share.load",  # that of genret.run, which also takes runs of the hub
    } | {f"genret.search.{name}" for name in ("catalog", "ranking")}


def test_no_circles():
    assert circle("genret") is None


def test_the_core_stays_small():
    assert {part for part in CORE if (ROOT / part / "__init__.py").is_file()} == CORE
    assert core_code_lines(ROOT) <= CORE_CODE_LINES


def test_no_file_is_long_and_no_folder_crowded():
    assert long_files(ROOT) == []
    assert crowded_folders(ROOT) == CROWDED


def test_package_inits_hold_no_code():
    """But for those that forward public names, the program, and what registers by hooks."""
    public = {"api", "cli", "commands", "components", "guide", "lab", "pictures", "serve", "share", "shell", "testing"}
    for init in ROOT.glob("*/__init__.py"):
        if init.parent.name not in public:
            body = ast.parse(init.read_text()).body
            assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body), init


# ------------------------------------------------------------------------------------------------ what breaks a law
REVERSED = [
    ("errors", "from genret.api import Record", "api"),
    ("api.one", "def f():\n    from genret.kit import images", "kit.images"),
    ("kit.one", "from genret.search import x", "search"),
    ("decode.one", "from .. import search", "search"),
    ("search.one", "import genret.train", "train"),
    ("train.one", "from genret import run", "run"),
    ("evaluate.one", "from genret.cli.state import State", "cli.state"),
    ("run", "if TYPE_CHECKING:\n    from genret.cli import state", "cli.state"),
    ("recipe.one", "import genret.components.losses as losses", "components.losses"),
    ("catalog.one", "from genret.lab import x", "lab"),
    ("plugin.one", "from ..guide import x", "guide"),
    ("search.two", "from genret import testing", "testing"),
    ("components.quantize.one", "from genret.components.identifiers import x", "components.identifiers"),
    ("components.losses.one", "from ..encoders import heads", "components.encoders.heads"),
    ("components.losses.two", "from genret.kit import loop", "kit.loop"),
    ("components.backbones.one", "from genret.settings import Settings", "settings"),
    ("components.retrievers.one", "from genret.train import x", "train"),
]
"""(a module, mostly a new one; a line in it; the module that this imports)"""


@pytest.fixture(scope="module")
def complaints(tmp_path_factory) -> str:
    """What is said of a copy of genret with all of these arrows in it."""
    root = tmp_path_factory.mktemp("reversed")
    shutil.copytree(ROOT, root / "genret", ignore=shutil.ignore_patterns("__pycache__"))
    for importer, text, _ in REVERSED:
        with (root / "genret" / f"{importer.replace('.', '/')}.py").open("a") as out:
            out.write(f"\n{text}\n")
    (root / "genret" / "elsewhere.py").touch()
    done = lint_imports(root)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(("importer", "imported"), [(importer, imported) for importer, _, imported in REVERSED])
def test_a_reversed_arrow_is_found(complaints, importer, imported):
    assert re.search(rf"genret\.{importer} -> genret\.{imported} \(l", complaints)


def test_a_part_without_a_place_is_found(complaints):
    assert "genret.elsewhere" in complaints


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ("from madeup import b", "def f():\n    from . import a", True),
        ("import madeup.b", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import madeup.a", False),
    ],
)
def test_a_circle_is_found(tmp_path, monkeypatch, first, second, found):
    for name, text in (("__init__", ""), ("a", first), ("b", second)):
        (tmp_path / "madeup").mkdir(exist_ok=True)
        (tmp_path / "madeup" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert set(circle("madeup") or ()) == ({"madeup.a", "madeup.b"} if found else set())


def test_measures_find_what_they_are_for(tmp_path):
    for number in range(FOLDER_FILES + 1):
        (tmp_path / "kit" / "deep").mkdir(parents=True, exist_ok=True)
        (tmp_path / "kit" / "deep" / f"m{number}.py").write_text("x = 1\n")
    (tmp_path / "lab.py").write_text("\n" * FILE_LINES)
    assert long_files(tmp_path) == []
    (tmp_path / "lab.py").write_text("\n" * (FILE_LINES + 1))
    assert long_files(tmp_path) == [str(tmp_path / "lab.py")]
    assert crowded_folders(tmp_path) == {"kit/deep"}
    assert core_code_lines(tmp_path) == FOLDER_FILES + 1


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ('"""About\n\nthis."""\n\n# why\nx = 1  # what\n', 1),
        ('class A:\n    """About."""\n\n    x: int = 1\n    """A field\'s."""\n', 2),
        ('x = """\ntext\n"""\n', 3),
        ("f(\n    1,\n\n    # why\n    2,\n)\n", 4),
        ("try:\n    pass\nfinally:\n    f()\n", 4),
    ],
)
def test_code_lines(source, count):
    assert code_lines(source) == count
