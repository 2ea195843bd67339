"""A bare folder: recipes/photos.yaml, made small, over the heads of the tiny run; with the real program."""

from __future__ import annotations

import csv
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


def test_what_is_said_and_kept(tiny: Tiny, tmp_path: Path, failed: Any) -> None:
    """The output names the protocol and no recall; the run needs neither the earlier one nor captions."""
    earlier, run = tmp_path / "earlier", tmp_path / "run"
    shutil.copytree(tiny.run, earlier)
    folder = pictures(tmp_path / "mine", 12)
    answer = train(tiny, folder, run, "--set", f"encoder={{type: run, run: {earlier}}}")
    assert answer.code == 0, answer.err
    said = " ".join(answer.err.split())
    assert "transductive: the pictures that are searched are those" in said
    assert "no recall can be measured" in said and "queries to try" in said and "R@" not in said
    expected = json.loads((run / "expectations.json").read_text())
    held = json.loads((run / "sentences.json").read_text())
    lines = set((tmp_path / "sentences.txt").read_text().splitlines())
    assert held and set(held) < lines and expected["num_sentences"] == len(held)
    for example in expected["examples"]:
        (first, *_) = tiny.genret("search", example["query"], "--run", run, "--json").document["hits"]
        assert first["image_id"] == example["image_id"]
    failed(tiny.genret("evaluate", "--run", run), 1, "have no captions, so no recall can be measured")

    shutil.rmtree(earlier)
    more = draw(tmp_path / "more.png", "blue", "cross")
    assert tiny.genret("index", more, "--run", run, "--json").document["added"] == 1
    again = tiny.genret("train", "--run", run, "--resume", "--json")
    assert again.code == 1 and "no finished run" in again.err, "only training anew asks for the earlier run"


def test_captions_of_a_data_set_teach_and_measure(tiny: Tiny, tmp_path: Path) -> None:
    """`texts` beside captioned pictures: the recall is measured as ever."""
    texts = f"texts={{type: sentences, file: {sentences(tmp_path)}}}"
    plain = tiny.genret("train", tiny.recipe, "--set", texts, "--run", tmp_path / "run", "--json")
    assert plain.code == 0, plain.err
    assert plain.document["evaluation"]["num_queries"] == 16 and not (tmp_path / "run" / "sentences.json").exists()
    data = f"texts={{type: folder, root: {tiny.data}, captions: captions.csv}}"
    answer = train(tiny, pictures(tmp_path / "mine", 9), tmp_path / "bare", "--set", data)
    assert answer.code == 0, answer.err
    held = set(json.loads((tmp_path / "bare" / "sentences.json").read_text()))
    with (tiny.data / "captions.csv").open() as table:
        of_dev = {row["caption"] for row in csv.DictReader(table) if row["split"] == "dev"}
    assert held == of_dev, "the development captions are held out"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("texts=null", "has no captions; say what teaches, such as texts: words"),
        ("protocol=inductive", "set it to transductive-index"),
        ("encoder={type: run, run: nope}", "no finished run 'nope'"),
        ("texts={type: sentences, file: /gone.txt}", "cannot read /gone.txt"),
        ("dataset=words", "name it under `texts`"),
    ],
)
def test_what_cannot_work(tiny: Tiny, tmp_path: Path, option: str, said: str) -> None:
    answer = train(tiny, pictures(tmp_path / "mine", 2), tmp_path / "run", "--set", option)
    assert answer.code in (1, 2) and answer.out == "" and "Traceback" not in answer.err
    assert said in answer.err.strip().splitlines()[-1] and answer.err.strip().splitlines()[-1].startswith("Error: ")
