"""A bare folder: recipes/photos.yaml, made small, over the heads of the tiny run; with the real program."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import COLOURS, GROUNDS, SHAPES, Tiny, draw

RECIPE = Path(__file__).parents[2] / "recipes" / "photos.yaml"
SMALL = {
    "identifier": "{type: rq, codebook_size: 4, num_levels: 3, train: {epochs: 0}}",
    "backbone": "{type: t5, d_model: 16, d_ff: 16, num_layers: 1, num_heads: 2, vocab_size: 128}",
    "train.epochs": 2,
    "train.batch_size": 16,
    "train.written_levels": 2,
    "train.bf16": "false",
    "search.num_beams": 10,
}


def sentences(folder: Path) -> Path:
    file = folder / "sentences.txt"
    lines = [f"a {colour} {shape} on {ground}" for colour in COLOURS for shape in SHAPES for ground in GROUNDS]
    lines += [f"{ground} ground with a {shape}" for shape in SHAPES for ground in GROUNDS]
    file.write_text("\n".join(lines) + "\n")
    return file


def pictures(folder: Path, count: int, alike: bool = False) -> Path:
    """Bare pictures in nested folders."""
    for number in range(count):
        colour, shape = COLOURS[number % 5], SHAPES[number // 5 % 4]
        file = draw(folder / f"f{number % 3}" / f"{number:02}.png", colour, shape, "orange" if number % 2 else "grey")
        if alike and number:
            shutil.copyfile(folder / "f0" / "00.png", file)
    return folder


def train(tiny: Tiny, folder: Path, run: Path, *more: object) -> Any:
    options = SMALL | {
        "dataset.root": folder,
        "texts": f"{{type: sentences, file: {sentences(run.parent)}}}",
        "encoder": "{type: run, run: tiny-1}",
    }
    words = [part for key, value in options.items() for part in ("--set", f"{key}={value}")]
    return tiny.genret("train", RECIPE, *words, *more, "--run", run, "--json")


@pytest.mark.parametrize(("count", "alike"), [(1, False), (2, False), (20, False), (6, True)])
def test_any_number_of_pictures(tiny: Tiny, tmp_path: Path, count: int, alike: bool) -> None:
    folder, run = pictures(tmp_path / "mine", count, alike), tmp_path / "run"
    answer = train(tiny, folder, run)
    assert answer.code == 0, answer.err
    assert answer.document["evaluation"] is None, "without captions nothing is called a recall"
    found = tiny.genret("search", "a red square on grey", "--run", run, "-k", 50, "--json").document
    assert {hit["image_id"] for hit in found["hits"]} == {str(file) for file in folder.rglob("*.png")}
    expected = json.loads((run / "expectations.json").read_text())
    assert expected["num_images"] == count and (count > 2 or expected["same_first"] == 100 or not alike)
    report = tiny.genret("index", folder, "--run", run, "--json").document
    assert (report["added"], report["unchanged"]) == (0, count), "indexing the same folder encodes nothing"
