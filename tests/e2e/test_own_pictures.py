"""The page docs/own-pictures.md, word by word: its blocks in their order, in an empty home, with the real recipes.

Five minutes on a free core, and a quarter of an hour without a run of the quick start:

    GENRET_QUICK_START=RUN pytest -m slow tests/e2e/test_own_pictures.py
    GENRET_PICTURES=FOLDER ...       folders Pictures and more of your own instead of drawn ones; -s shows what is said
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from tests.e2e.conftest import COLOURS, SHAPES, draw
from tests.e2e.documents import ROOT, blocks

PAGE = blocks(ROOT / "docs" / "own-pictures.md")
SHELL = [block.text for block in PAGE if block.language == "sh"]
(PYTHON,) = [block.text for block in PAGE if block.language == "python"]
INSTALLATION = ("python3 -m venv", "source ", "pip install")
"""Beginnings of lines that are left out: what they install is what runs this test."""
HUB = "genret train recipes/photos.yaml --set dataset.root=~/Pictures\n"
"""The one block that wants a model hub."""
pytestmark = pytest.mark.slow


class Reader:
    """Somebody with an empty home, who types what the page says, in a clone of genret."""

    def __init__(self, home: Path):
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("GENRET_")}
        self.environment |= {"HOME": str(home), "PATH": f"{home.parent / 'bin'}:{os.environ['PATH']}"}
        program = home.parent / "bin" / "genret"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m genret "$@"\n')
        program.chmod(0o755)

    def types(self, text: str) -> str:
        print(f"\n$ {text}", flush=True)
        started = time.monotonic()
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text], cwd=ROOT, env=self.environment, capture_output=True, text=True
        )
        print(f"{done.stderr}{done.stdout}[{time.monotonic() - started:.0f} s]", flush=True)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr and "Warning" not in done.stderr
        return done.stdout + done.stderr

    def opens_the_page(self, command: str) -> str:
        """Starts the server, looks, and ends it by Ctrl-C."""
        server = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=ROOT, env=self.environment, stderr=subprocess.PIPE, text=True
        )
        until = time.monotonic() + 120
        while time.monotonic() < until and server.poll() is None:
            try:
                html = urllib.request.urlopen("http://127.0.0.1:8000/?q=a+red+car", timeout=5).read().decode()
            except OSError:
                time.sleep(0.5)
            else:
                if "data-id" in html:
                    break
        server.send_signal(signal.SIGINT)
        assert server.wait(30) in (0, 130)
        return html


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    root = tmp_path_factory.mktemp("walk")
    home = root / "home"
    if given := os.environ.get("GENRET_PICTURES"):
        for name in ("Pictures", "more"):
            shutil.copytree(Path(given) / name, home / name)
    else:
        for number, (colour, shape) in enumerate(product(COLOURS, SHAPES)):
            draw(home / ("more" if number % 5 == 4 else "Pictures") / f"{colour} {shape}.png", colour, shape)
    if run := os.environ.get("GENRET_QUICK_START"):
        shutil.copytree(run, home / ".genret" / "runs" / "avg-1")
    return Reader(home)


def commands(home: Path) -> Iterator[str]:
    """The page's commands, but for what is installed, trained already, or wants a hub."""
    for text in SHELL:
        if text == HUB:
            continue
        for line in text.replace("\\\n", " ").splitlines():
            trained = line == "genret train recipes/avg.yaml" and (home / ".genret" / "runs" / "avg-1").is_dir()
            if not line.startswith(INSTALLATION) and not trained:
                yield line


def test_the_page_word_by_word(reader: Reader) -> None:
    assert HUB in SHELL, "the page has its block for a hub"
    home = Path(reader.environment["HOME"])
    here, more = (sum(file.is_file() for file in (home / name).rglob("*")) for name in ("Pictures", "more"))
    said = dict[str, str]()
    for line in commands(home):
        said[line] = reader.opens_the_page(line) if line == "genret serve" else reader.types(line)

    def of(words: str) -> str:
        (found,) = [text for line, text in said.items() if words in line]
        return found

    trained = " ".join(of("recipes/photos.yaml").split())
    for promised in ("transductive", "hardly use their codes", "no recall can be measured", "photos-1 is ready"):
        assert promised in trained, promised
    assert "Note: rerank" not in trained, "nothing to raise in a recipe as it is shipped"
    assert len([line for line in of("-k 5").splitlines() if line[:1].isdigit()]) == 5
    assert len(json.loads(of("--json").splitlines()[0])["hits"]) == 10
    assert "Nothing matches" in of("--min-confidence") or of("--min-confidence")[0] == "1"
    assert "data-id" in of("serve")
    assert f"Nothing new: {here} pictures were there already" in of("index ~/Pictures")
    assert f"Added {more} pictures" in of("index ~/more")
    shown = subprocess.run(
        [sys.executable, "-c", PYTHON], cwd=ROOT, env=reader.environment, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
