"""`genret plugins new`: writes a project that can be installed, tested and published as it is.

The component comes from `templates/`; this module writes the files around it.
"""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from typing import NamedTuple

from genret.errors import UnknownName, UsageError
from genret.plugin.registry import Registries, plural

TEMPLATES = Path(__file__).parent / "templates"
WRITTEN = sorted(path.stem for path in TEMPLATES.glob("[!_]*.py"))
"""Kinds of components with a template."""


class Names(NamedTuple):
    """The spellings of a plugin's name."""

    name: str
    """In recipes: `my-scheme`."""
    package: str
    """For pip: `genret-my-scheme`."""
    module: str
    """For Python imports: `genret_my_scheme`."""
    camel: str
    """For classes: `MyScheme`."""


def names_of(given: str) -> Names:
    name = given.removeprefix("genret-")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise UsageError(f"'{given}' is no name for a plugin; use small letters, digits and single dashes: my-scheme")
    module = name.replace("-", "_")
    return Names(name, f"genret-{name}", f"genret_{module}", "".join(part.capitalize() for part in name.split("-")))


def new_plugin(given: str, kind: str, parent: Path, registries: Registries) -> Path:
    """Writes `parent/genret-NAME`; neither the folder nor the name may be in use."""
    if kind not in WRITTEN:
        raise UnknownName("kind of component with a template", kind, WRITTEN)
    names = names_of(given)
    if names.name in (registry := registries.of(kind)):
        raise UsageError(
            f"the {kind} '{names.name}' is already registered by {registry.origin(names.name)}; choose another name"
        )
    root = parent / names.package
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UsageError(f"{root} is there already; choose another name, or another folder with --folder")
    files = {
        "pyproject.toml": PYPROJECT,
        "README.md": README,
        "recipe.yaml": _recipe(kind, names.name),
        f"{names.module}/__init__.py": INIT,
        f"{names.module}/{kind}.py": (TEMPLATES / f"{kind}.py").read_text(encoding="utf-8"),
        f"tests/test_{names.module}.py": TESTS,
    }
    checks = ", ".join(sorted([f"check_{kind}", "check_plugin", "check_recipe"]))
    words = {
        "{KIND}": kind,
        "{HOOK}": f"register_{plural(kind)}",
        "{USE}": _use(kind, names.name),
        "{PACKAGE}": names.package,
        "{CLASS}": f"{names.camel}{kind.capitalize()}",
        "{MODULE}": names.module,
        "{NAME}": names.name,
        "{CHECKS}": checks,
        "Example": names.camel,
        "example": names.name,
    }
    for path, text in files.items():
        for word, meaning in words.items():
            text = text.replace(word, meaning)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return root


def _use(kind: str, name: str) -> str:
    """How to use it, in words."""
    if kind == "evaluator":
        return f"Once it is installed, every evaluation has its figures, under `{name}`."
    slot = {"loss": f"loss.{name}.weight=1", "reranker": f"rerank={name}"}.get(kind, f"{kind}={name}")
    return f"In any other recipe: `--set {slot}`."


def _recipe(kind: str, name: str) -> str:
    """A small recipe that names the new component; evaluators need none."""
    if kind in ("retriever", "evaluator"):
        return RECIPE + f"retriever: {name if kind == 'retriever' else 'two-tower'}\n"
    recipe = RECIPE + GENERATIVE
    if kind == "loss":
        return recipe.replace("  token: {weight: 1}\n", f"  token: {{weight: 1}}\n  {name}: {{weight: 1}}\n")
    key = "rerank" if kind == "reranker" else kind
    (line,) = re.findall(rf"^{key}:.*\n(?:  .*\n)*", recipe, re.MULTILINE)
    return recipe.replace(line, f"{key}: {name}\n")


PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{PACKAGE}"
version = "0.1.0"
description = "The {KIND} {NAME} for genret."
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["genret"]

[project.optional-dependencies]
test = ["pytest>=8"]

[project.entry-points.genret]
{NAME} = "{MODULE}"

[tool.setuptools.packages.find]
include = ["{MODULE}*"]
"""

README = """\
# {PACKAGE}

The {KIND} `{NAME}` for [genret](https://pypi.org/project/genret/).

    genret install .                            # or: pip install .
    genret components {KIND} {NAME}
    genret train recipe.yaml

{USE} The recipe here trains on emoji, which come with the plugin genret-starter.

To change it:

    genret install --editable .
    pip install pytest
    pytest

`tests/` holds it to genret's contract; when a test fails, its message says what to change.
"""

INIT = '''\
"""What this package adds to genret. Imports nothing heavy: the target is loaded when a recipe names it."""

import genret


@genret.hookimpl
def {HOOK}(register):
    register("{NAME}", "{MODULE}.{KIND}:{CLASS}")
'''

TESTS = '''\
"""genret's own conformance kit; a message says what to change."""

from pathlib import Path

import pytest
from genret.testing import {CHECKS}

import {MODULE}
from {MODULE}.{KIND} import {CLASS}


def test_it_registers():
    assert check_plugin({MODULE}) == ["{KIND} {NAME}"]


def test_it_keeps_the_contract():
    check_{KIND}({CLASS})


def test_its_recipe_is_sound():
    pytest.importorskip("genret_starter", reason="the recipe trains on the pictures of genret-starter")
    check_recipe(Path(__file__).parents[1] / "recipe.yaml", {MODULE})
'''

RECIPE = """\
# {NAME} in a small training that takes minutes. Options: genret components {KIND} {NAME}
#   genret train recipe.yaml
dataset: {type: emoji, limit: 300}
encoder:
  type: paired
  image: {type: timm, model: tf_efficientnet_lite0, weights: "starter:efficientnet-lite0", image_size: 128}
  text: {type: sentence, model: "starter:minilm"}
"""

GENERATIVE = """\
identifier: {type: rq, codebook_size: 64, num_levels: 3}
backbone: {type: t5, d_model: 128, d_ff: 256, num_layers: 2, num_heads: 4, vocab_size: 1000}
loss:
  token: {weight: 1}
train: {epochs: 20, batch_size: 64, lr: 0.002}
search: {num_beams: 20}
rerank: null
"""
