"""The code blocks of the documents, and what a shell would run of them.

Blocks of a shell are read by bash itself, in a folder where every program is a stand-in that notes its words and does
nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *sorted(ROOT.glob("docs/*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted(ROOT.glob("plugins/*/README.md")),
]
PROGRAMS = (
    "genret", "pip", "python", "python3", "pytest", "ruff", "mypy", "curl", "ir_measures", "twine", "mkdocs",
    "docker", "id",
)  # fmt: skip
STAND_IN = """\
#!{python} -IS
import json, os, pathlib, sys
name, words = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
with open({notes!r}, "a") as notes:
    notes.write(json.dumps([name, *words]) + "\\n")
if words[:2] == ["-m", "venv"]:
    made = pathlib.Path(words[2], "bin")
    made.mkdir(parents=True, exist_ok=True)
    (made / "activate").touch()
    for program in {programs!r}:
        (made / program).symlink_to(pathlib.Path({bin!r}, program))
"""


class Block(NamedTuple):
    document: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.document}:{self.line}"


def blocks(document: Path) -> list[Block]:
    """All blocks of code; an indented one has the language ''."""
    name = document.relative_to(ROOT).as_posix()
    return [
        Block(name, token.map[0] + 1 if token.map else 0, token.info.strip(), token.content)
        for token in MarkdownIt().parse(document.read_text(encoding="utf-8"))
        if token.type in ("fence", "code_block")
    ]


def commands(text: str, folder: Path) -> list[list[str]]:
    """The programs that bash starts for these lines, each with its words; ~ is `folder/home`."""
    bin, notes, here = folder / "bin", folder / "notes", folder / "here"
    for part in (bin, here / "tools", folder / "home"):
        part.mkdir(parents=True)
    stand_in = STAND_IN.format(python=sys.executable, notes=str(notes), programs=PROGRAMS, bin=str(bin))
    for program in [*(bin / name for name in PROGRAMS), *(here / "tools" / file.name for file in tools())]:
        program.write_text(stand_in)
        program.chmod(0o755)
    environment = {"PATH": str(bin), "HOME": str(folder / "home")}
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", text], cwd=here, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"bash: {done.stderr}"
    return [json.loads(line) for line in notes.read_text().splitlines()]


def tools() -> list[Path]:
    return [file for file in (ROOT / "tools").iterdir() if file.is_file() and os.access(file, os.X_OK)]
