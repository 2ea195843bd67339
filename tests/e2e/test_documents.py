"""Every block of code in the documents: run, or read by what would run it, or said here why not.

A new block needs nothing but to be right. Python is run on a tiny run that bears the quick start's name; commands are
read by bash and by the program's own parser, and what they train is validated; YAML is laid over a recipe.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shutil
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import ir_measures
import pytest

import genret
from genret.serve.app import create_app
from genret.serve.options import ServeOptions
from tests.e2e.conftest import Tiny, draw
from tests.e2e.documents import DOCUMENTS, ROOT, Block, blocks, commands
from tests.serve.live import listening
from tests.test_docs import commands as known_commands
from tests.test_docs import needs_plugins

ALL = [block for document in DOCUMENTS for block in blocks(document)]
READ = ("sh", "python", "yaml", "json", "toml")
PLAIN = ("text", "mermaid", "bibtex")
ELSEWHERE = {
    ("README.md", "genret.load"): "run by test_readme.py",
    ("docs/mteb.md", ""): "run by test_mteb.py",
    ("docs/plugins.md", "dice"): "used from installation to search by test_tutorial.py",
    ("docs/plugins.md", "build_index"): "methods of a class, which test_tutorial.py holds to its contract",
    ("docs/plugins.md", "OneBook"): "held to its contract by test_tutorial.py",
    ("docs/sharing.md", "hub:"): "the hub is out of reach; tests/share opens runs of a local one",
}
"""Blocks that are not run here, by document and a word in them, each with the reason."""
every_command = cache(known_commands)
THIRD = {"build", "twine"}
"""Packages of others that the documents install."""


def of(language: str) -> Any:
    chosen = [block for block in ALL if block.language == language]
    return pytest.mark.parametrize("block", chosen, ids=[block.place for block in chosen])


def reason(block: Block) -> str | None:
    return next((why for (name, word), why in ELSEWHERE.items() if name == block.document and word in block.text), None)


def test_every_block_says_what_it_is() -> None:
    """Fenced, with a language that is tested; what is plain text holds no command."""
    for block in ALL:
        assert block.language in (*READ, *PLAIN), f"{block.place}: say ```sh, ```python, ```yaml, ```json or ```text"
        if block.language in PLAIN:
            assert not re.search(r"^(\$ |genret [a-z]|pip |import )", block.text, re.MULTILINE), block.place
    for (name, word), why in ELSEWHERE.items():
        left = [block.place for block in ALL if block.document == name and word in block.text]
        assert left, f"nothing of {name} is left out any more"
        print(*left, "not run here:", why)
    print(Counter(block.language for block in ALL))


@contextmanager
def served(tiny: Tiny) -> Iterator[str]:
    """A server over the tiny run."""
    with genret.load(tiny.run) as run, listening(create_app(run, ServeOptions())) as address:
        yield address


# ------------------------------------------------------------------------------------------------ shell
def check(text: str, tiny: Tiny, folder: Path) -> None:
    found = commands(text, folder)
    assert found
    for program, *words in found:
        CHECKS.get(program, of_others)(words, tiny)


@needs_plugins
@of("sh")
def test_commands(block: Block, tiny: Tiny, tmp_path: Path) -> None:
    if reason(block) is None:
        check(block.text, tiny, tmp_path)


def of_genret(words: list[str], tiny: Tiny) -> None:
    """The program's own parser takes it; a training's recipe is sound."""
    known = every_command()
    length = 2 if " ".join(words[:2]) in known else 1
    name = " ".join(words[:length])
    assert name in known, f"no command: genret {name}"
    context = known[name].make_context(name, list(words[length:]))
    options = [
        part for pair in context.params.get("set") or context.params.get("overrides") or () for part in ("--set", pair)
    ]
    recipes = [str(ROOT / recipe) for recipe in context.params.get("recipes") or () if isinstance(recipe, (str, Path))]
    if name in ("train", "sweep", "validate") and recipes:
        answer = tiny.genret("validate", *recipes, *options, "--print")
        assert answer.code == 0, answer.err
    if name == "reproduce":
        answer = tiny.genret("validate", ROOT / "recipes/avg.yaml", *options)
        assert answer.code == 0, answer.err


def of_pip(words: list[str], tiny: Tiny) -> None:
    """Folders and extras exist; packages are genret's, its plugins' or known."""
    assert words[0] == "install"
    rest = iter(words[1:])
    for word in rest:
        if word in ("-c", "--constraint"):
            assert (ROOT / next(rest)).is_file()
        elif not word.startswith("-"):
            name, extras = re.fullmatch(r"([\w./-]+?)(?:\[([\w,]+)\])?", word).groups()  # type: ignore[union-attr]
            project = ROOT / ("" if name == "genret" else f"plugins/{name}" if name.startswith("genret-") else name)
            if (project / "pyproject.toml").is_file():
                offered = tomllib.loads((project / "pyproject.toml").read_text())["project"].get(
                    "optional-dependencies", {}
                )
                assert set(filter(None, (extras or "").split(","))) <= set(offered), word
            else:
                shipped = "".join(path.read_text() for path in ROOT.glob("plugins/*/genret_*/**/*.py"))
                assert name in THIRD or re.sub(r"\d+$", "", name) in shipped, f"unknown package {name}"


def of_python(words: list[str], tiny: Tiny) -> None:
    """The module or file is there and knows the options."""
    if words[:1] == ["-m"]:
        spec = importlib.util.find_spec(words[1])
        assert spec is not None and spec.origin is not None, words
        source, rest = Path(spec.origin), words[2:]
    else:
        source, rest = ROOT / words[0], words[1:]
    if source.is_relative_to(ROOT):
        offered = "".join(path.read_text(encoding="utf-8") for path in {source, *source.parent.glob("*.py")})
        assert all(word in offered for word in rest if word.startswith("--")), words


def of_others(words: list[str], tiny: Tiny) -> None:
    """A program of tools/, which bash found there, or one that needs no look."""


def of_pytest(words: list[str], tiny: Tiny) -> None:
    for word in words:
        if word.startswith("tests/"):
            assert (ROOT / word).exists(), word


def of_ir_measures(words: list[str], tiny: Tiny) -> None:
    assert [ir_measures.parse_measure(word) for word in words[2:]]


def of_curl(words: list[str], tiny: Tiny) -> None:
    """The server takes it."""
    address = next(word for word in words if word.startswith("http"))
    with served(tiny) as server:
        answer = httpx.post(address.replace("http://127.0.0.1:8000", server), content=words[words.index("-d") + 1])
    assert answer.status_code == 200 and answer.json(), answer.text


def of_docker(words: list[str], tiny: Tiny) -> None:
    """Files that are named exist; there is no Docker here to run it."""
    assert all((ROOT / name).is_file() for flag, name in pairwise(words) if flag == "-f")


CHECKS = {
    "genret": of_genret, "pip": of_pip, "python": of_python, "python3": of_python, "pytest": of_pytest,
    "ir_measures": of_ir_measures, "curl": of_curl,
    "docker": of_docker,
}  # fmt: skip


@needs_plugins
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("genret find x", "no command"),
        ("genret search x --no-such-option", "No such option"),
        ("genret train recipes/avg.yaml --set identifier=nope", "nope"),
        ("genret train recipes/gone.yaml", "gone.yaml"),
        ("pip install 'genret[nope]'", "nope"),
        ("pip install nope", "unknown package"),
        ("python -m bench.nope", "nope"),
        ("python -m bench.decoding --nope", "--nope"),
        ("tools/nope", "No such file"),
        ("some-program", "not found"),
    ],
)
def test_wrong_commands_are_found(text: str, said: str, tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=said):
        check(text, tiny, tmp_path)


# ------------------------------------------------------------------------------------------------ Python
@pytest.fixture(scope="module")
def home(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with runs of the names that the documents use, and two folders of pictures."""
    home = tmp_path_factory.mktemp("documents")
    for name in ("avg-1", "photos-1"):
        shutil.copytree(tiny.run, home / ".genret" / "runs" / name)
    for folder, colour in (("Pictures", "red"), ("more", "blue")):
        draw(home / folder / "new.png", colour, "circle")
    return home


TINY = {"❤ Noto": "06.png", "c0_17": "c0_1"}
"""What the quick start's run has, and its counterpart in the tiny one."""


@of("python")
def test_python(block: Block, home: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    text = block.text
    if reason(block) is not None:
        ast.parse(text)
        return
    for variable, value in (("HOME", home / ".genret"), ("DEVICE", "cpu"), ("NUM_THREADS", 1)):
        monkeypatch.setenv(f"GENRET_{variable}", str(value))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    for old, new in TINY.items():
        text = text.replace(old, new)
    with ExitStack() as stack:
        if "http://127.0.0.1:8000" in text:
            text = text.replace("http://127.0.0.1:8000", stack.enter_context(served(tiny)))
        names: dict[str, Any] = {}
        exec(compile(text, block.place, "exec"), names)
        if isinstance(run := names.get("run"), genret.Run):
            run.close()


# ------------------------------------------------------------------------------------------------ data
@needs_plugins
@of("yaml")
def test_yaml(block: Block, tiny: Tiny, tmp_path: Path) -> None:
    """Laid over a recipe, it is one."""
    (tmp_path / "block.yaml").write_text(block.text, encoding="utf-8")
    answer = tiny.genret("validate", ROOT / "recipes" / "avg.yaml", tmp_path / "block.yaml")
    assert answer.code == 0, answer.err


@of("json")
def test_json(block: Block) -> None:
    for line in block.text.splitlines():
        assert json.loads(line)


@of("toml")
def test_toml(block: Block) -> None:
    assert tomllib.loads(block.text)
