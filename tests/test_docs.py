"""The documents keep up with the code: file map, commands, hooks, options, settings.

`python tests/test_docs.py` rewrites the generated ends of docs/recipes.md and docs/architecture.md.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
from pydantic import BaseModel

import genret
from genret import testing
from genret.cli import build
from genret.cli.state import State
from genret.guide.describe import _json_of, _type_name, bounds_of
from genret.plugin import hookspecs
from genret.plugin.loading import load_plugins
from genret.plugin.registry import KINDS
from genret.recipe import plain_yaml
from genret.recipe.schema import PlainOptions
from genret.settings import Settings
from genret.shell.provenance import COMPANIONS

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("plugins/*/README.md")),
    *sorted(ROOT.glob("recipes/**/*.yaml")),
]  # fmt: skip
OURS = ("genret", "genret.lab", "bm25", "fsq", "groups", "margin", "random", "starter")
"""Plugins whose components the documents describe."""
OPTIONS = "<!-- options: generated from the code by `python tests/test_docs.py` -->\n"
FILES = "<!-- files: generated from their docstrings by `python tests/test_docs.py` -->\n"

needs_plugins = pytest.mark.skipif(
    any(find_spec(f"genret_{name}") is None for name in OURS[2:]), reason="not all of plugins/* are installed"
)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """What stands below a `## heading`, up to the next one."""
    match = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert match, f"there is no section '## {heading}'"
    return match[1]


def fenced(text: str) -> list[str]:
    return re.findall(r"^```[a-z]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


# ------------------------------------------------------------------------------------------------ file map
LONG = 90
"""Letters of a sentence in the file map; of longer ones what stands before the first colon or semicolon."""


def sources() -> list[Path]:
    return sorted((ROOT / "genret").rglob("*.py"), key=lambda path: (path.parent.parts, path.name))


def purpose(path: Path) -> str:
    """The first sentence of a module's docstring."""
    paragraph, *_ = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")
    said = re.split(r"(?<=[.?]) (?=[A-Z])", " ".join(paragraph.split()))[0].rstrip(".")
    return said if len(said) <= LONG else re.split("[:;] ", said)[0]


def file_map() -> str:
    """A heading for each folder of the package, a line for each file."""
    lines: list[str] = []
    for path in sources():
        folder = path.parent.relative_to(ROOT).as_posix()
        if path.name == "__init__.py":
            said = purpose(path)
            lines += ["", f"**{folder}/**" + (f" {said}" if said else ""), ""]
        else:
            lines.append(f"- `{path.name}` {purpose(path)}")
    return "\n".join(lines).strip() + "\n"


def test_file_map_lists_every_file() -> None:
    """What each says of itself in one line, under its folder."""
    _, marker, stored = read("docs/architecture.md").partition(FILES)
    assert marker and stored.strip() == file_map().strip(), "run: python tests/test_docs.py"
    listed, folder = list[str](), ""
    for line in filter(None, stored.splitlines()):
        found = re.fullmatch(r"\*\*(?P<folder>[\w/]+/)\*\*( .+)?|- `(?P<name>\w+\.py)` .{10,150}", line)
        assert found, f"a folder, or a file and what it is for: {line}"
        folder = found["folder"] or folder
        listed.append(folder + (found["name"] or "__init__.py"))
    there = {path.relative_to(ROOT).as_posix() for path in sources()}
    assert len(listed) == len(set(listed)) and set(listed) == there, "every file, once"


# ------------------------------------------------------------------------------------------------ README
@pytest.mark.parametrize(
    ("heading", "starts", "words"),
    [
        ("Quick start", "python3 -m venv .venv", ("plugins/genret-starter", "train recipes/avg.yaml", "genret search")),
        ("Tests", "python3 -m venv .venv", ("ruff check", "ruff format --check", "mypy", "pytest")),
    ],
)
def test_readme_has_one_command_per_section(heading: str, starts: str, words: tuple[str, ...]) -> None:
    """From a bare clone: nothing but Python is there, so everything else has to be named with its place."""
    (command,) = fenced(section(read("README.md"), heading))
    assert command.startswith(starts)
    joined = command.replace("\\\n", " ")
    assert len(joined.strip().splitlines()) == 1, "one command"
    assert all(word in joined for word in words)
    for part in joined.split("&&"):
        program = shlex.split(part)[0]
        assert program == "python3" or program.startswith(".venv/bin/"), program


def test_continuous_integration_runs_the_readmes_command() -> None:
    """`.ci/run` cuts the command out of the README; it is cut out here by the same program, and not run."""
    script = read(".ci/run")
    (program,) = re.findall(r"^command=\$\((awk .*)\)$", script, re.MULTILINE)
    found = subprocess.run(["bash", "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    (command,) = fenced(section(read("README.md"), "Tests"))
    assert found.stdout.strip() == command.strip()
    assert subprocess.run(["bash", "-n", "-c", command]).returncode == 0, "bash can read it"


def test_recipes_and_documents_that_are_named_exist() -> None:
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for name in set(re.findall(r"\b(?:recipes|docs)/[\w/-]+\.(?:yaml|md)\b", text)):
            assert (ROOT / name).is_file(), f"{document.name} names {name}"
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", text):
            assert (document.parent / link).exists(), f"{document.name} links to {link}"


def slugs(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_anchors(document: Path) -> list[str]:
    """Links to a heading that is not there, in this document or in another."""
    links = re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", document.read_text(encoding="utf-8"))
    return [
        f"{file}#{anchor}"
        for file, anchor in links
        if anchor not in slugs(document.parent / file if file else document)
    ]


def test_links_lead_to_headings(tmp_path: Path) -> None:
    for document in DOCUMENTS:
        assert not broken_anchors(document), document.name
    page = tmp_path / "page.md"
    page.write_text("# A page's `code`, twice\n[here](#a-pages-code-twice) [nowhere](#gone) [nor](page.md#there)\n")
    assert broken_anchors(page) == ["#gone", "page.md#there"]


def test_the_readme_is_a_door() -> None:
    """Short, with a result to look at before anything else, and no merge left half done in any document."""
    text = read("README.md")
    assert len(text.splitlines()) <= 150
    (picture, *_) = re.findall(r"!\[[^\]]{20,}\]\((.+?)\)", text[: text.index("## ")])
    assert (ROOT / picture).stat().st_size <= 300_000
    for document in DOCUMENTS:
        assert not re.search(r"^(<{7}|={7}|>{7})", document.read_text(encoding="utf-8"), re.MULTILINE), document.name


def test_the_citation_is_genrets_and_the_papers() -> None:
    cited = plain_yaml.parse(read("CITATION.cff")).value
    project = tomllib.loads(read("pyproject.toml"))["project"]
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    (paper,) = cited["references"]
    assert paper["title"].replace(" ", "") in re.sub(r"\s", "", read("README.md"))
    number = paper["url"].rpartition("/")[2]
    assert number in paper["journal"] and number in read("README.md")


# ------------------------------------------------------------------------------------------------ architecture
def test_the_map_has_every_folder() -> None:
    told = re.findall(r"^\| `([\w/]+)/` \| .{5,}\|$", section(read("docs/architecture.md"), "The map"), re.MULTILINE)
    there = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("genret/*/__init__.py")}
    beside = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name in told}
    assert len(told) == len(set(told)) and set(told) == there | beside | {"genret"}
    assert {"plugins", "recipes", "tests", "bench", "tools"} <= beside


def test_the_spine_is_an_evenings_reading() -> None:
    """At most ten files and 2,000 lines, a sentence each."""
    text = section(read("docs/architecture.md"), "The spine")
    listed = re.findall(r"^(\d+)\. `([\w/]+\.py)`: ([^.;]{20,}\.)$", text, re.MULTILINE)
    assert [int(number) for number, _, _ in listed] == list(range(1, len(listed) + 1))
    assert len(listed) == len(re.findall(r"^\d+\.", text, re.MULTILINE)), "number, file, one sentence"
    files = [ROOT / name for _, name, _ in listed]
    assert len(set(files)) == len(files) and 5 <= len(files) <= 10
    assert sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files) <= 2000


# ------------------------------------------------------------------------------------------------ commands, hooks
def commands() -> dict[str, Any]:
    """Every command by its words: `train`, `plugins`, `plugins new`."""
    import typer.main

    settings = Settings(plugins="")
    program = typer.main.get_command(build(State(settings, load_plugins((), settings))))
    found = dict(program.commands)  # type: ignore[attr-defined]
    for name, command in list(found.items()):
        found |= {f"{name} {inner}": below for inner, below in getattr(command, "commands", {}).items()}
    return found


def test_every_command_and_option_is_documented() -> None:
    text = read("docs/cli.md")
    for name, command in commands().items():
        described = section(text, f"genret {name}")
        for parameter in command.params:
            spelling = max(parameter.opts, key=len) if parameter.opts[0].startswith("-") else None
            if spelling not in (None, "--help"):
                assert f"`{spelling}" in described, f"docs/cli.md: {name} {spelling}"


def test_examples_name_commands_and_options_that_exist() -> None:
    """Every `genret ...` line of the documents: a command there is, with options that it has."""
    known = commands()
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8").replace("\\\n", " ")
        for words in re.findall(r"(?:^|[`#/ ])genret ([a-z]+(?: [^`\n&#]*)?)", text, re.MULTILINE):
            name, _, rest = words.partition(" ")
            if (first := f"{name} {rest.partition(' ')[0]}") in known:
                name, rest = first, rest.partition(" ")[2]
            if rest and name in known:
                options = {option for parameter in known[name].params for option in parameter.opts}
                for option in re.findall(r"(?<=\s)--?[a-z][a-z-]*", f" {rest}"):
                    assert option in {*options, "--debug", "--plugin", "--help", "-h"}, (
                        f"{document.name}: genret {words}"
                    )


def test_every_hook_is_documented() -> None:
    """With its argument, in docs/plugins.md, and nothing but hooks that there are."""
    told = dict(
        re.findall(r"^\| `(register_\w+)` \| `(\w+)` \|", section(read("docs/plugins.md"), "Hooks"), re.MULTILINE)
    )
    real = {
        name: ", ".join(inspect.signature(getattr(hookspecs, name)).parameters)
        for name in dir(hookspecs)
        if name.startswith("register_")
    }
    assert told == real


def test_the_public_names_are_documented() -> None:
    promised = section(read("docs/plugins.md"), "What is promised").partition("and those of")[0]
    assert set(re.findall(r"`(\w+)`", promised)) - {"genret"} == set(genret.__all__)
    kit = re.findall(
        r"^\| `(check_\w+|train_run)\(", section(read("docs/plugins.md"), "The conformance kit"), re.MULTILINE
    )
    assert {*kit, "ContractError"} == set(testing.__all__)


def test_what_components_have_to_have_is_what_is_abstract() -> None:
    table = section(read("docs/plugins.md"), "What a component is")
    for kind, base in KINDS.items():
        (row,) = re.findall(rf"^\| `{base.__name__}` \|(.*?)\|(.*?)\|$", table, re.MULTILINE)
        needed, optional = (set(re.findall(r"`(\w+)`", cell)) for cell in row)
        assert base.__abstractmethods__ <= needed, kind  # type: ignore[attr-defined]
        words = optional | (needed - {"stage", "tokenizer", "generator"})
        if base is genret.Retriever:
            base = genret.CatalogRetriever  # what most retrievers derive from is told in the same row
            assert base.__abstractmethods__ <= needed
            words -= {"CatalogRetriever"}
        assert all(hasattr(base, name) for name in words), kind


def test_shipped_plugins_are_listed_tested_and_known() -> None:
    """In docs/plugins.md, in the README's test command, and in the table that helps who lacks one."""
    folders = {path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml")}
    text = section(read("docs/plugins.md"), "Shipped plugins")
    (command,) = fenced(section(read("README.md"), "Tests"))
    for folder in folders:
        assert f"[{folder}](" in text and re.search(f"-e '?plugins/{folder}\\b", command), folder
        assert list((ROOT / "plugins" / folder / "tests").glob("test_*.py")), "tests of its own"
        assert (ROOT / "plugins" / folder / "README.md").is_file() and (ROOT / "plugins" / folder / "LICENSE").is_file()
    assert set(COMPANIONS) == folders


@needs_plugins
def test_companions_register_what_the_core_believes() -> None:
    registries = load_plugins((), Settings()).registries
    for package, kinds in COMPANIONS.items():
        origin = package.removeprefix("genret-")
        mine = {
            registry.kind: tuple(name for name in registry if registry.origin(name) == origin)
            for registry in registries.all()
        }
        assert {kind: names for kind, names in mine.items() if names} == kinds


def test_every_setting_is_documented() -> None:
    text = read("docs/cli.md")
    for name in Settings.model_fields:
        assert f"`GENRET_{name.upper()}`" in text, name


# ------------------------------------------------------------------------------------------------ options
class Row(NamedTuple):
    option: str
    type: str
    default: str
    meaning: str


def rows(model: type[BaseModel], prefix: str = "") -> Iterator[Row]:
    """All options of a Config; those of nested ones by key path, of alternatives one after the other."""
    for name, field in model.model_fields.items():
        inner = [part for part in (field.annotation, *get_args(field.annotation)) if is_model(part)]
        meaning = " ".join((field.description or "").split())
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        if len(inner) == 1:
            if type(None) in get_args(field.annotation):
                shown = "null" if default is None else "{}"
                yield Row(f"{prefix}{name}", "options or null", f"`{shown}`", meaning)
            yield from (with_default(row, default, f"{prefix}{name}.") for row in rows(inner[0], f"{prefix}{name}."))
        elif inner:
            kinds = [str(part.model_fields["type"].default) for part in inner]
            yield Row(f"{prefix}{name}", " or ".join(kinds), as_code(default.type), meaning)
            for kind, part in zip(kinds, inner, strict=True):
                own = (row for row in rows(part, f"{prefix}{name}.") if row.option != f"{prefix}{name}.type")
                yield from (row._replace(option=f"{row.option} ({kind})") for row in own)
        else:
            shown = "required" if field.is_required() else as_code(_json_of(default))
            kind = ", ".join(
                part for part in (_type_name(field.annotation).replace(" | ", " or "), bounds_of(field)) if part
            )
            yield Row(f"{prefix}{name}", kind, shown, meaning)


def is_model(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)


def with_default(row: Row, owner: Any, prefix: str) -> Row:
    """What a nested option is if the owner's default says otherwise than its own."""
    value = getattr(owner, row.option.removeprefix(prefix), None)
    return row if value is None or isinstance(value, BaseModel) else row._replace(default=as_code(_json_of(value)))


def as_code(value: Any) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def table(model: type[BaseModel]) -> str:
    found = list(rows(model))
    if not found:
        return "No options.\n"
    lines = ["| option | type | default | meaning |", "|---|---|---|---|"]
    for row in found:
        cells = (f"`{row.option}`", row.type, row.default, row.meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def generated() -> str:
    registries = load_plugins((), Settings()).registries
    parts = ["### The recipe itself\n", table(PlainOptions)]
    for kind in KINDS:
        registry = registries.of(kind)
        for name in registry:
            if registry.origin(name) in OURS:
                parts += [f"### {kind} `{name}`\n", table(registry.get(name).Config)]
    return "\n".join(parts)


@needs_plugins
def test_option_tables_are_those_of_the_code() -> None:
    _, marker, stored = read("docs/recipes.md").partition(OPTIONS)
    assert marker and stored.strip() == generated().strip(), "run: python tests/test_docs.py"


@needs_plugins
def test_every_option_has_a_meaning() -> None:
    for line in generated().splitlines():
        assert not line.endswith("|  |"), f"no docstring beneath the option: {line}"


# ------------------------------------------------------------------------------------------------ what no document says
def test_no_document_names_a_machine_or_a_package_index() -> None:
    """Paths of one machine and addresses of one network mean nothing to whoever clones this."""
    bad = re.compile(
        r"/(?:work|root|mnt|tmp|home/(?!me/)\w+)/|\bfile://|--(?:extra-)?index-url|\b10\.\d+\.\d+\.\d+|localhost:\d"
    )
    for document in DOCUMENTS:
        for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
            assert not bad.search(line), f"{document.relative_to(ROOT)}:{number}: {line}"


if __name__ == "__main__":
    for name, sign, text in (("recipes", OPTIONS, generated()), ("architecture", FILES, file_map())):
        path = ROOT / "docs" / f"{name}.md"
        before, marker, _ = path.read_text(encoding="utf-8").partition(sign)
        assert marker, f"{path} has no line {sign}"
        path.write_text(before + sign + "\n" + text.rstrip() + "\n", encoding="utf-8")
