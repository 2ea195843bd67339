"""`python -m bench.gpu` itself: parts end in time, are not run twice, and what they lack is said. A rehearsal of all
parts is marked slow; `.ci/run` makes it.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from bench.gpu import __main__ as gpu
from bench.gpu import sid_gr
from bench.gpu.parts import PARTS, Part, Setup
from genret.decode.beam import beam_search

ROOT = Path(__file__).parents[1]
FIGURES = {"one": {"title": "One", "measured": {}, "options": {}, "columns": [], "rows": [], "bars": [], "checks": {}}}


@pytest.fixture
def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a part that runs the given lines, with the path of its figures in `out`."""

    def make(lines: str, seconds: int = 20) -> Part:
        path = tmp_path / "part.py"
        path.write_text(f"import json, sys, time\nout = sys.argv[1]\n{lines}\n")
        monkeypatch.setattr(Part, "command", lambda self, setup, out: [sys.executable, str(path), str(out)])
        return Part("mock", "A part", seconds, "nothing")

    return make


def run(part: Part, folder: Path, left: float = 100.0) -> dict:
    return gpu.run(part, Setup("cpu", True, None), folder, left, {"commit": "c", "device": "cpu", "processor": "p"})


def test_a_part_leaves_its_figures(part, tmp_path):
    made = part(f"json.dump({FIGURES!r}, open(out, 'w'))")
    entry = run(made, tmp_path)
    assert entry["status"] == "done" and entry["sections"] == FIGURES
    assert json.loads((tmp_path / "mock.json").read_text()) == entry


def test_a_part_is_stopped_in_time_and_its_first_figures_are_kept(part, tmp_path):
    made = part(f"json.dump({FIGURES!r}, open(out, 'w'))\ntime.sleep(60)", seconds=2)
    entry = run(made, tmp_path)
    assert entry["status"] == "stopped" and entry["sections"] == FIGURES and entry["seconds"] < 30


def test_a_failed_part_says_its_last_line(part, tmp_path):
    entry = run(part("sys.exit('no kernel image')"), tmp_path)
    assert (entry["status"], entry["reason"]) == ("failed", "no kernel image")


def test_a_part_that_lacks_something_is_not_measured(part, tmp_path):
    entry = run(part("print('no photographs'); sys.exit(3)"), tmp_path)
    assert (entry["status"], entry["reason"]) == ("not measured", "no photographs")
    assert run(part("pass"), tmp_path, left=0)["reason"] == "no time was left"


def test_what_was_done_for_this_code_on_this_machine_is_not_done_again(part, tmp_path):
    run(part("pass"), tmp_path)
    path, about = tmp_path / "mock.json", {"commit": "c", "device": "cpu", "processor": "p"}
    assert gpu._known(path, about) is not None
    assert gpu._known(path, about | {"commit": "d"}) is None
    assert gpu._known(path, about | {"gpu": "another"}) is None
    run(part("sys.exit(1)"), tmp_path)
    assert gpu._known(path, about) is None, "what failed is run again"


def test_without_a_gpu_or_a_known_part_nothing_starts(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="there is no part sidgr; take some of correctness, decoding"):
        gpu.main(["--device", "cpu", "--only", "sidgr", "--out", str(tmp_path)])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="torch sees no GPU here"):
        gpu.main(["--out", str(tmp_path)])


def test_the_published_shape_reads_its_whole_context():
    """And the floor of a search is what the search itself asks of the model."""
    shape = sid_gr.Shape(torch.device("cpu"), quick=True)
    backbone, calls = shape.model.backbone, []
    assert backbone._prompts([shape.text])[0].shape == (1, shape.context)
    original = backbone.step

    def step(state, symbols, parents, columns):
        calls.append((None if symbols is None else symbols.shape, len(columns)))
        return original(state, symbols, parents, columns)

    backbone.step = step
    beam_search(backbone, [shape.text], shape.trie, shape.beams, "level", shape.model.level_tokens)
    searched, calls[:] = list(calls), []
    shape.floor(1)(0)
    assert calls == searched and len(calls) == sid_gr.STEPS


def test_the_wheels_are_all_that_genret_needs_besides_torch_and_transformers():
    there = {"torch", "torchvision", "transformers", "tokenizers", "huggingface_hub", "safetensors", "numpy", "pyyaml"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[^\w-]", one)[0] for one in project["dependencies"]} - there
    fetched = re.search(r"packages=\((.*?)\)", (ROOT / "tools/gpu_wheels").read_text(), re.DOTALL)
    assert fetched and {name.replace("_", "-").lower() for name in needed} <= {
        name.replace("_", "-").lower() for name in fetched[1].split()
    }


@pytest.mark.slow
def test_all_parts_can_be_rehearsed_without_a_gpu(tmp_path, capsys):
    gpu.main(["--device", "cpu", "--quick", "--out", str(tmp_path)])
    summary = (tmp_path / "summary.md").read_text()
    assert summary in capsys.readouterr().out
    for part in PARTS:
        entry = json.loads((tmp_path / f"{part.name}.json").read_text())
        assert entry["status"] == "done" and entry["sections"], (part.name, entry["reason"])
