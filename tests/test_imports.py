"""Who may import whom: an arrow that points the wrong way fails here, wherever in a file it hides.

errors ← interfaces ← registry, hookspecs ← component kinds, decode, catalog ← plugins, recipe ← assemble, retrievers ←
train, evaluate, serve ← cli. Component kinds never import one another.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import genret

ROOT = Path(genret.__file__).parent

# each layer may import those above it
LAYERS = [
    {"errors", "plain_yaml"},
    {"interfaces", "settings"},
    {"loop", "nearest_captions", "hub", "precision", "stored", "faults", "draft", "registry", "hookspecs", "discovery"},
    {"data", "encoders", "quantize", "identifiers", "backbones", "losses", "rerank", "decode", "catalog"},
    {"builtins", "plugins", "recipe", "compatibility", "provenance", "installer", "scaffold", "templates"},
    {"retrievers"},
    {"assemble"},
    {"train", "evaluate", "report", "serve", "testing"},
    {"cli"},
    {"mteb"},
    {"__main__"},
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
KINDS = LAYERS[3]
ALLOWED_SIDEWAYS = {("identifiers", "quantize")}
"""Besides these, parts of one layer of components stay apart."""
PACKAGE_INIT_MAY = {"errors", "hookspecs", "interfaces"}
"""`genret/__init__.py` only forwards what plugin authors use."""
LOOP_USERS = {"encoders", "identifiers", "train", "retrievers", "assemble", "evaluate", "backbones"}


def part_of(module: str) -> str:
    """genret.kit.images → data"""
    return module.split(".")[1] if "." in module else "__init__"


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Every genret module that is imported, at the top, in a function or for types only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "genret")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            if base == "genret":
                yield from (f"genret.{alias.name}" for alias in node.names)
            elif base.startswith("genret."):
                yield base


def arrows(root: Path = ROOT) -> Iterator[tuple[str, str, str]]:
    """(file, importing part, imported part)"""
    for file in sorted(root.rglob("*.py")):
        relative = file.relative_to(root).with_suffix("")
        package = ".".join(["genret", *relative.parts[:-1]])
        part = relative.parts[0]
        for module in imports(ast.parse(file.read_text()), package):
            yield str(file.relative_to(root)), part, part_of(module)


def fault(importer: str, imported: str) -> str | None:
    if importer == imported:
        return None
    if importer == "__init__":
        return None if imported in PACKAGE_INIT_MAY else "the package itself only forwards the extension API"
    if imported not in LEVEL:
        return None  # a name of the package itself: `from genret import Config`
    if LEVEL[imported] > LEVEL[importer]:
        return "the arrow is reversed"
    if importer in KINDS and imported in KINDS and (importer, imported) not in ALLOWED_SIDEWAYS:
        return "components never import one another"
    if imported == "loop" and importer not in LOOP_USERS:
        return "only what is trained knows the training loop"
    return None


def test_no_reversed_arrows():
    found = [f"{file} imports {imported}: {why}" for file, part, imported in arrows() if (why := fault(part, imported))]
    assert not found, "\n".join(found)


def test_every_part_has_its_place():
    parts = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {"__init__"} <= set(LEVEL)


def test_package_inits_hold_no_code():
    for init in ROOT.glob("*/__init__.py"):
        if init.parent.name in ("cli", "testing", "mteb"):  # one is the program, the others public
            continue
        body = ast.parse(init.read_text()).body
        assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body), init


@pytest.mark.parametrize(
    ("file", "text", "importer", "imported"),
    [
        ("losses/x.py", "def f():\n    from genret.decode.beam import search\n", "losses", "decode"),
        ("data/x.py", "if TYPE_CHECKING:\n    from genret import recipe\n", "data", "recipe"),
        ("data/x.py", "import genret.cli.ui\n", "data", "cli"),
        ("data/x.py", "from ..cli import ui\n", "data", "cli"),
        ("data/x.py", "from .. import assemble\n", "data", "assemble"),
        ("registry.py", "from genret.plugin.loading import load_plugins\n", "registry", "plugins"),
        ("train/x.py", "from genret.cli.ui import Ui\n", "train", "cli"),
        ("quantize/x.py", "from genret.components.identifiers import rq\n", "quantize", "identifiers"),
    ],
)
def test_the_walk_finds_what_it_is_for(tmp_path, file, text, importer, imported):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    ((_, *found),) = arrows(tmp_path)
    assert found == [importer, imported] and fault(importer, imported)


@pytest.mark.parametrize(
    ("importer", "imported"), [("identifiers", "quantize"), ("encoders", "loop"), ("cli", "train")]
)
def test_arrows_that_are_right(importer, imported):
    assert fault(importer, imported) is None
