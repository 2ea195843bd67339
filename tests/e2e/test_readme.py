"""The README's lines of Python, run as they stand there."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import genret
from tests.e2e.conftest import draw

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def test_the_readmes_python_runs(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against a tiny run that bears the name of the quick start's; every line does something that can be seen."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(code.strip().splitlines()) == 8 and all(word in code for word in ("genret.load", "search", "index"))
    home, name = tmp_path / "home", re.findall(r'genret\.load\("(.+?)"\)', code)[0]
    shutil.copytree(tiny.run, home / "runs" / name)
    (folder,) = re.findall(r'run\.index\("(.+?)"\)', code)
    draw(tmp_path / folder / "new.png", "red", "circle")
    for variable, value in (("HOME", home), ("DEVICE", "cpu"), ("NUM_THREADS", 1)):
        monkeypatch.setenv(f"GENRET_{variable}", str(value))
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    *hits, figures = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in hits] == ["1", "2", "3", "4", "5"], "five hits, best first"
    evaluation = names["figures"]
    assert figures == f"{evaluation.recall['10']} {evaluation.two_tower['10']}"
    found = tiny.genret("search", "a red circle", "-k", 50, "--json", "--run", home / "runs" / name).document
    assert any(hit["image_id"].endswith("new.png") for hit in found["hits"]), "indexed"


def test_the_readmes_picture_can_be_drawn_anew(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found stands where its rank says: a row for each query, the first hit at the left."""
    for variable, value in (("HOME", tiny.home), ("DEVICE", "cpu"), ("NUM_THREADS", 1)):
        monkeypatch.setenv(f"GENRET_{variable}", str(value))
    tool = runpy.run_path(str(ROOT / "tools" / "picture"))
    queries = ["a red square on grey", "a blue line on orange"]
    with genret.load("tiny-1") as run:
        sheet = tool["draw"](run, queries)
        catalog = run.retriever.catalog
        for row, found in enumerate(run.search(queries, k=tool["HITS"])):
            assert len(found.hits) == tool["HITS"]
            for place, hit in enumerate(found.hits):
                (known,) = catalog.lookup(catalog.keys_of([hit.image_id]))
                corner = np.asarray(run.retriever.thumbnails.open(known.sha256))[2, 2].astype(int)
                x = (tool["LEFT"] + (place + 0.5) * tool["CELL"] - 26) * tool["SCALE"]
                y = (tool["TOP"] + row * tool["ROW"] + 6) * tool["SCALE"]
                assert np.abs(np.array(sheet.getpixel((round(x), round(y)))) - corner).max() < 40, (row, place)


def examples() -> dict[str, str]:
    """The searches in the README and in the help of the commands, each with its filter."""
    sources = [
        README,
        *(file for room in ("cli", "commands", "shell") for file in sorted((ROOT / "genret" / room).glob("*.py"))),
    ]
    found: dict[str, str] = {}
    for source in sources:
        text = source.read_text(encoding="utf-8")
        found |= dict(re.findall(r"""genret search "([^"]+)"(?: --where ['"]([^'"]+)['"])?""", text))
        found |= dict.fromkeys(re.findall(r'run\.search\("(.+?)"', text), "")
    return {query: where for query, where in found.items() if query not in PLACEHOLDERS}


PLACEHOLDERS = ("what one shows", "what one of them shows", "a submarine", "a dog -beach", "in the snow")
"""Stand for the user's own words."""


def test_there_are_examples_and_all_name_a_picture() -> None:
    assert {"rainbow", "pancakes"} <= set(examples()) and len(examples()) >= 3


@pytest.mark.slow
def test_the_examples_find_what_they_name(tmp_path: Path) -> None:
    """On the quick start's own run: a quarter of an hour of training, or the run that GENRET_QUICK_START names."""
    words = [sys.executable, "-m", "genret"]
    run = os.environ.get("GENRET_QUICK_START")
    if run is None:
        run = str(tmp_path / "run")
        home = os.environ | {"GENRET_HOME": str(tmp_path / "home")}
        subprocess.run([*words, "train", "recipes/avg.yaml", "--run", run], cwd=ROOT, env=home, check=True)
    with genret.load(run) as opened:
        for query, where in examples().items():
            first = opened.search(query, k=1, where=where).hits[0]
            assert first.metadata["name"] == query, f"{query!r} finds {first.metadata['name']!r} first"
