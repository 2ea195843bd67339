"""What mkdocs does not know of genret's documents: a hook of mkdocs.yml.

Documents beside docs/ (README, changelog, the plugins' pages, notebooks) become pages where they stand, without copies;
their links are turned to where pages of the site are, and files that are linked come along. The reference is written
from the code: the program's own help, and the public names, whose docstrings mkdocstrings reads.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
BESIDE = {"README.md": "index.md"} | {
    f"{name}.md": f"{name.lower()}.md" for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY")
}
"""Documents beside docs/, by their place in the repository: their place in the site."""
PLACES = (
    BESIDE
    | {
        path.relative_to(ROOT).as_posix(): f"plugins/{path.parent.name}.md"
        for path in sorted(ROOT.glob("plugins/*/README.md"))
    }
    | {
        path.relative_to(ROOT / "docs").with_suffix(".ipynb").as_posix(): f"notebooks/{path.stem}.md"
        for path in sorted(ROOT.glob("docs/notebooks/*.ipynb"))
    }
)
LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)#\s]+)((?:#[^)\s]*)?\))")
WIDTH = 80
"""Letters in a line of the program's help, as fit beside two columns."""
RUNS = ("load", "connect", "Run", "Query")
ERRORS = ("GenretError", "UsageError", "RecipeError", "UnknownName", "BadImage")
ANSWERS = ("SearchResult", "Hit", "SearchScore", "IndexReport", "Skipped", "Restriction")


# ------------------------------------------------------------------------------------------------ pages and links
def origin(src_uri: str) -> str:
    """Where a page of the site stands in the repository."""
    return next((name for name, place in PLACES.items() if place == src_uri), f"docs/{src_uri}")


def place(name: str) -> str:
    """Where a document or file of the repository stands in the site."""
    return PLACES.get(name) or (name.removeprefix("docs/") if name.startswith("docs/") else f"files/{name}")


def links(name: str) -> Iterator[str]:
    """The files of the repository that a document links to."""
    for _, target, _ in LINK.findall((ROOT / name).read_text(encoding="utf-8")):
        yield posixpath.normpath(posixpath.join(posixpath.dirname(name), target))


def turned(markdown: str, src_uri: str) -> str:
    """The text with links as they are in the site."""
    here, there = posixpath.dirname(origin(src_uri)), posixpath.dirname(src_uri)

    def turn(found: re.Match[str]) -> str:
        aim = place(posixpath.normpath(posixpath.join(here, found[2])))
        return found[1] + posixpath.relpath(aim, there or ".") + found[3]

    return LINK.sub(turn, markdown)


def on_files(files: Files, config: Any) -> Files:
    for name, src_uri in PLACES.items():
        if name.endswith(".ipynb"):
            files.append(File.generated(config, src_uri, content=notebook(ROOT / "docs" / name)))
        else:
            files.append(File.generated(config, src_uri, abs_src_path=str(ROOT / name)))
    for src_uri, write in REFERENCE.items():
        files.append(File.generated(config, src_uri, content=write()))
    documents = [name for name in PLACES if name.endswith(".md")]
    documents += [path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")]
    for aim in sorted({aim for name in documents for aim in links(name)}):
        if place(aim).startswith("files/") and (ROOT / aim).is_file():
            files.append(File.generated(config, place(aim), abs_src_path=str(ROOT / aim)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    if page.file.src_uri in REFERENCE or page.file.src_uri.startswith("notebooks/"):
        return markdown
    return re.sub(r"^```mermaid\n(.*?)^```$", _arrows, turned(markdown, page.file.src_uri), flags=re.M | re.S)


def _arrows(found: re.Match[str]) -> str:
    """A flow chart as lines of text: the script that draws such charts would have to come from elsewhere."""
    names = dict(re.findall(r'(\w+)\["(.+?)"\]', found[1]))
    arrows = re.findall(r"(\w+) -->\|(.+?)\| (\w+)", found[1])
    width = max(len(names[start]) for start, _, _ in arrows)
    lines = [f"{names[start]:{width}}  {label}  →  {names[end]}" for start, label, end in arrows]
    return "\n".join(["```text", *lines, "```"])


def notebook(path: Path) -> str:
    """A notebook as a page: its text, its cells of code."""
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(path.read_text("utf-8"))["cells"]]
    parts = [f"```python\n{source}\n```" if kind == "code" else source for kind, source in cells]
    return "\n\n".join([*parts, f"[The notebook itself]({path.name})"])


# ------------------------------------------------------------------------------------------------ reference
def shown(names: Iterator[str] | list[str], level: int = 3) -> str:
    return "\n\n".join(f"::: {name}\n    options:\n      heading_level: {level}" for name in names)


def python() -> str:
    return "\n\n".join([
        "# Python",
        "What programs import. `genret.load` opens a run, `genret.connect` one that is served, with the same methods.",
        "## Runs and queries", shown([f"genret.{name}" for name in RUNS]),
        "## Answers", shown([f"genret.api.{name}" for name in ANSWERS]),
        "## Errors", shown([f"genret.{name}" for name in ERRORS]),
    ])  # fmt: skip


def components() -> str:
    import genret
    import genret.api

    rest = [f"genret.{name}" for name in genret.__all__ if name not in {*RUNS, *ERRORS, "__version__"}]
    rest += [f"genret.api.{name}" for name in genret.api.__all__ if name not in {*genret.__all__, *ANSWERS}]
    return "\n\n".join([
        "# Components",
        "What each kind of component has to do, and the records that are handed to it. "
        "[Plugins](../plugins.md) says how one is written and brought in. Shape letters:",
        "```text\n" + _letters() + "\n```",
        shown(rest, 2),
    ])  # fmt: skip


def _letters() -> str:
    import inspect

    import genret.api

    (found,) = re.findall(r"^ {4}B .*?(?=\n\n)", str(genret.api.__doc__), re.M | re.S)
    return inspect.cleandoc(found)


def kit() -> str:
    parts = ["# The kit", "Helpers that components share; public as [promised](../plugins.md#what-is-promised)."]
    for room in ("kit", "toolbox"):
        for path in sorted((ROOT / "genret" / room).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            if path.name != "__init__.py":
                parts.append(shown([name], 2))
    return "\n\n".join([*parts, shown(["genret.testing"], 2)])


def help_pages() -> str:
    import typer
    import typer.main

    from genret.cli import build
    from genret.cli.state import State
    from genret.plugin.loading import load_plugins
    from genret.settings import Settings

    settings = Settings(plugins="")
    program = typer.main.get_command(build(State(settings, load_plugins((), settings))))
    parts = [
        "# The program's own help",
        "What `genret COMMAND --help` prints. [The command line](../cli.md) says more.",
    ]

    def told(command: Any, context: Any) -> None:
        parts.extend([f"## {context.command_path}", f"```text\n{command.get_help(context).rstrip()}\n```"])
        for name, below in getattr(command, "commands", {}).items():
            told(
                below,
                typer.Context(below, info_name=name, parent=context, max_content_width=WIDTH, terminal_width=WIDTH),
            )

    told(program, typer.Context(program, info_name="genret", max_content_width=WIDTH, terminal_width=WIDTH))
    return "\n\n".join(parts)


REFERENCE: dict[str, Callable[[], str]] = {
    "reference/python.md": python,
    "reference/components.md": components,
    "reference/kit.md": kit,
    "reference/help.md": help_pages,
}
