"""Whatever is wrong, people get one sentence and an exit code, and what was stored stays sound."""

from __future__ import annotations

import errno
import json
import re
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from genret.kit import checkpoint
from genret.kit.files import write_json


def sound(tiny: Any) -> None:
    """The finished run is as good as before."""
    found = tiny.genret("search", "a red square on grey", "-k", 50, "--json")
    assert found.code == 0 and len(found.document["hits"]) == 8


@pytest.fixture(autouse=True)
def _still_sound(tiny):
    yield
    sound(tiny)


# ------------------------------------------------------------------------------------------------ recipes
@pytest.mark.parametrize(
    "setting, said",
    [
        ("train.epoch=3", ["train.epoch", "did you mean 'epochs'"]),
        ("trian.epochs=3", ["trian", "did you mean 'train'"]),
        ("train.epochs=many", ["train.epochs", '"many"', "integer"]),
        ("train.epochs=-1", ["train.epochs", "-1"]),
        ("identifier=rqq", ["identifier", "unknown identifier 'rqq'", "did you mean 'rq'"]),
        ("encoder.image.type=tim", ["encoder.image", "timm"]),
        ("loss.aligne.weight=1", ["loss.aligne", "did you mean 'align'"]),
        ("protocol=inductiv", ["protocol", "inductive"]),
        ("search.num_beams", ["--set search.num_beams", "key=value"]),
        ("retriever=two-towers", ["retriever", "two-tower"]),
    ],
)
def test_a_wrong_setting(tiny, failed, tmp_path, setting, said):
    run = tmp_path / "run"
    failed(tiny.genret("train", tiny.recipe, "--set", setting, "--run", run), 2, *said)
    assert not run.exists()


@pytest.mark.parametrize(
    "text, said",
    [
        ("datasett: folder\n", "broken.yaml:1: datasett: unknown key, did you mean 'dataset'?"),
        ("dataset: {type: folder, root: x, image_colum: x}\n", "did you mean 'image_column'"),
        ("dataset: [\n", "line 2: expected the node content"),
        ("just words\n", "is no recipe"),
        ("\0", "broken.yaml"),
        ("train: {epochs: !!python/object/apply:os.system [true]}\n", "broken.yaml"),
    ],
)
def test_a_wrong_recipe_file(tiny, failed, tmp_path, text, said):
    (tmp_path / "broken.yaml").write_text(text)
    answer = tiny.genret("train", tiny.recipe, tmp_path / "broken.yaml", "--run", tmp_path / "run")
    failed(answer, 2, "broken.yaml", said)
    assert not (tmp_path / "run").exists()


def test_all_faults_at_once(tiny, tmp_path):
    answer = tiny.genret("train", tiny.recipe, "--set", "train.epoch=3", "--set", "loss.aligne.weight=1")
    assert answer.code == 2 and "2 faults" in answer.err and len(answer.err.splitlines()) == 3


def test_a_missing_recipe(tiny, failed, tmp_path):
    failed(tiny.genret("train", tmp_path / "nothing.yaml"), 2, "nothing.yaml")


# ------------------------------------------------------------------------------------------------ data
def test_a_caption_file_that_names_missing_images(tiny, failed, tmp_path):
    data = shutil.copytree(tiny.data, tmp_path / "data")
    (data / "07.png").unlink()
    (data / "09.png").unlink()
    answer = tiny.genret("train", tiny.recipe, "--set", f"dataset.root={data}", "--run", tmp_path / "run")
    failed(answer, 1, "captions.csv", "2 of 40", "07.png")


def test_a_missing_data_folder(tiny, failed, tmp_path):
    answer = tiny.genret("train", tiny.recipe, "--set", f"dataset.root={tmp_path / 'no'}", "--run", tmp_path / "run")
    failed(answer, 1, str(tmp_path / "no"), "dataset.root")


def png_bomb() -> bytes:
    """60,000 x 60,000 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 10_000))
        + chunk(b"IEND", b"")
    )


GOOD = {"cartoon.gif", "print.jpg", "scan.png", "plain.png"}
BAD = {
    "cut.jpg": "damaged",
    "empty.png": "is empty (0 bytes)",
    "notes.png": "it is a text file",
    "bomb.png": "pixels",
}


@pytest.fixture
def odd(tiny: Any, tmp_path: Path) -> Path:
    """A folder as people have them."""
    folder = tmp_path / "odd"
    plain = Image.open(tiny.draw(folder / "plain.png", "red", "cross"))
    plain.convert("P").save(folder / "cartoon.gif", save_all=True, append_images=[plain.convert("P").rotate(90)])
    plain.convert("CMYK").save(folder / "print.jpg")
    Image.fromarray(np.asarray(plain.convert("L")).astype(np.uint16) * 200).save(folder / "scan.png")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8))
    noise.save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:900])
    (folder / "empty.png").write_bytes(b"")
    (folder / "notes.png").write_text("milk, bread, two pears\n")
    (folder / "bomb.png").write_bytes(png_bomb())
    return folder


def test_indexing_a_folder_of_odd_files(tiny, run, odd):
    answer = tiny.genret("index", "--run", run, odd, "--json")
    assert answer.code == 0, answer.err
    assert answer.document["added"] == len(GOOD)
    skipped = {Path(item["path"]).name: item["reason"] for item in answer.document["skipped"]}
    assert skipped.keys() == BAD.keys()
    for name, reason in BAD.items():
        assert reason in skipped[name] and name in skipped[name]
    found = {Path(image).name for image in tiny.search("--run", run) if image.startswith(str(odd))}
    assert found == GOOD
    words = tiny.genret("index", "--run", run, odd)  # for people
    assert words.code == 0 and "Traceback" not in words.err and words.err.count("skipped:") == len(BAD)


def test_indexing_nothing_but_bad_files(tiny, run, odd, tmp_path):
    for name in GOOD:
        (odd / name).unlink()
    answer = tiny.genret("index", "--run", run, odd, "--json")
    assert answer.code == 1 and json.loads(answer.out)["added"] == 0 and len(json.loads(answer.out)["skipped"]) == 4
    assert "Traceback" not in answer.err
    (tmp_path / "bare").mkdir()
    answer = tiny.genret("index", "--run", run, tmp_path / "bare", tmp_path / "nowhere", "--json")
    reasons = [item["reason"] for item in json.loads(answer.out)["skipped"]]
    assert answer.code == 1 and sorted(reasons) == ["it does not exist", "it holds no pictures"]
    assert len(tiny.search("--run", run)) == 8


def test_training_goes_on_without_the_bad_pictures(tiny, odd, tmp_path):
    data = shutil.copytree(tiny.data, tmp_path / "data")
    rows = (data / "captions.csv").read_text().splitlines()
    for name in sorted(GOOD | BAD.keys()):
        shutil.copy(odd / name, data / name)
        rows += [f"{name},a {split} picture called {name},{split},red" for split in ("train",)]
    for split in ("dev", "test"):  # bad ones in every split
        shutil.copy(odd / "cut.jpg", data / f"{split}.jpg")
        rows.append(f"{split}.jpg,a cut picture,{split},red")
    tiny.draw(data / "bare.png", "red", "ring")
    rows.append("bare.png,,train,red")
    (data / "captions.csv").write_text("\n".join(rows) + "\n")
    run = tmp_path / "run"
    answer = tiny.genret("train", tiny.recipe, "--set", f"dataset.root={data}", "--run", run, "--json")
    assert answer.code == 0, answer.err
    assert re.search(r"1 of \d+ pictures of split 'train' have no caption: only an identifier model", answer.err)
    for name in (*BAD, "dev.jpg", "test.jpg"):
        assert f"left out {data / name}: " in " ".join(answer.err.split()), name
    assert answer.document["evaluation"]["num_images"] == 8
    assert len(tiny.search("--run", run)) == 8


def test_training_on_nothing_but_bad_pictures(tiny, failed, odd, tmp_path):
    rows = [f"{name},words,{split},red" for name in ["cut.jpg"] for split in ("train",)]
    (odd / "captions.csv").write_text("\n".join(["image,caption,split,colour", *rows]) + "\n")
    answer = tiny.genret("train", tiny.recipe, "--set", f"dataset.root={odd}", "--run", tmp_path / "run")
    assert answer.code == 1 and "Traceback" not in answer.err
    assert answer.err.splitlines()[-1].startswith("Error: the split 'train' has no usable picture")
    assert "cut.jpg" in answer.err.splitlines()[-1]


# ------------------------------------------------------------------------------------------------ queries
def test_no_run_yet(tiny, failed, tmp_path):
    for words in (["search", "a dog"], ["evaluate"], ["index", tiny.data]):
        failed(tiny.genret(*words, home=tmp_path / "empty"), 1, "no finished run yet", "genret train recipes/avg.yaml")
        failed(tiny.genret(*words, "--run", tmp_path / "nothing"), 2, str(tmp_path / "nothing"))
    (tmp_path / "begun").mkdir()
    failed(tiny.genret("search", "a dog", "--run", tmp_path / "begun"), 1, "is not finished", "--resume")


@pytest.mark.parametrize("query", ["", "   ", "\n\t"])
def test_an_empty_query(tiny, failed, query):
    failed(tiny.genret("search", query), 2, "the query is empty")


def test_queries_that_are_none(tiny, failed, tmp_path):
    (tmp_path / "queries.txt").write_text('a dog\n\n{"query": " "}\n')
    failed(tiny.genret("search", "--queries", tmp_path / "queries.txt"), 2, "line 3", "queries.txt")
    (tmp_path / "queries.txt").write_text("\n \n")
    failed(tiny.genret("search", "--queries", tmp_path / "queries.txt"), 2, "queries.txt holds no query")
    (tmp_path / "queries.txt").write_bytes(b"\xff\xfe\x00")
    failed(tiny.genret("search", "--queries", tmp_path / "queries.txt"), 2, "queries.txt")
    failed(tiny.genret("search"), 2, "ask for something")


@pytest.mark.parametrize(
    "query", ["red square " * 5000, "x" * 50_000, "🐶" * 3000, "\x00\x1b[31m red", "<pad></s><eos>"]
)
def test_strange_and_endless_queries_are_answered(tiny, query):
    found = tiny.genret("search", query, "-k", 3, "--json")
    assert found.code == 0, found.err
    assert found.document["query"] == query and len(found.document["hits"]) == 3


def test_wrong_options(tiny, failed):
    failed(tiny.genret("search", "a dog", "--where", "colour ~~ 3"), 2, "colour")
    failed(tiny.genret("search", "a dog", "--where", "collour=red"), 2, "did you mean 'colour'")
    failed(tiny.genret("evaluate", "--split", "tset"), 2, "tset", "did you mean 'test'")
    failed(tiny.genret("evaluate", "--num-beams", "1,x"), 2, "--num-beams 1,x")
    assert tiny.genret("search", "a dog", "-k", -1).code == 2
    assert tiny.genret("search", "a dog", "-k", 0, "--json").document["hits"] == []
    found = tiny.genret("search", "a dog", "-k", 1_000_000, "--json").document
    assert len(found["hits"]) == 8, "more than there is"


# ------------------------------------------------------------------------------------------------ places
def test_a_home_that_is_a_file(tiny, failed, tmp_path):
    (tmp_path / "home").write_text("")
    for words in (["train", tiny.recipe], ["train", tiny.recipe, "--run", tmp_path / "run"]):
        failed(tiny.genret(*words, home=tmp_path / "home"), 1, str(tmp_path / "home"), "GENRET_")
    failed(tiny.genret("search", "a dog", home=tmp_path / "home"), 1, "no finished run yet")
    (tmp_path / "file").write_text("")
    failed(tiny.genret("train", tiny.recipe, "--run", tmp_path / "file"), 2, "is a file")
    failed(tiny.genret("train", tiny.recipe, "--run", tmp_path / "file" / "run"), 1, str(tmp_path / "file"), "--run")
    failed(tiny.genret("search", "a dog", "--run", tmp_path / "file"), 2, "is a file")


def test_a_run_directory_in_use(tiny, failed, tmp_path):
    failed(tiny.genret("train", tiny.recipe, "--run", tiny.run), 2, "in use", "--resume")
    answer = tiny.genret("train", tiny.recipe, "--set", "train.epochs=1", "--run", tiny.run, "--resume")
    failed(answer, 2, "another recipe", "train")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("")
    failed(tiny.genret("train", tiny.recipe, "--run", tmp_path / "mine"), 2, "in use")
    failed(tiny.genret("train", "--run", tmp_path / "mine", "--resume"), 2, "no recipe.yaml")


def test_places_without_permission(tiny, failed, tmp_path, monkeypatch):
    """As root, nothing is forbidden: so the call that would be refused is."""

    def forbidden(self: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", forbidden)
    answer = tiny.genret("train", tiny.recipe, "--run", tmp_path / "run")
    failed(answer, 1, "no permission", str(tmp_path / "run"), "--run")
    answer = tiny.genret("train", tiny.recipe, home=tmp_path / "home")
    failed(answer, 1, "no permission", str(tmp_path / "home"), "GENRET_")


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


LAST = "genret.training.write_json"


def full_at_the_end(path: Path, content: Any) -> None:
    """The run is measured and all but the summary is written."""
    if path.name == "summary.json":
        full()
    write_json(path, content)


def full_tensors(*_: Any, **__: Any) -> Any:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    "target",
    [
        "genret.training.write_text",
        "genret.kit.checkpoint.save_file",
        "genret.toolbox.saving.save_file",
        "genret.train.targets.save_file",
        "genret.components.backbones.t5.T5Backbone.save",
        "genret.train.pipeline.append_row",
        "genret.kit.files.shutil.copytree",
        "genret.catalog.store.Upsert._flush",
        "genret.search.thumbnails.thumbnail",
        "genret.lab.leakage.leakage.write_json",
        "genret.lab.confidence.evaluator.write_json",
        LAST,
    ],
)
def test_a_full_disk_while_training(tiny, tmp_path, monkeypatch, target):
    """Wherever the disk runs full: one sentence; and with room again, --resume ends as if nothing had been."""
    run, home = tmp_path / "run", tmp_path / "home"
    shutil.copytree(tiny.home / "features", home / "features")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "SECONDS", 0.0)
        fails = full_tensors if target.endswith("save_file") else full_at_the_end if target == LAST else full
        patch.setattr(target, fails)
        answer = tiny.genret("train", tiny.recipe, "--run", run, home=home)
    assert answer.code == 1 and "Traceback" not in answer.err, answer
    last = answer.err[answer.err.rindex("Error: ") :]
    assert ("disk is full" in last or "No space left" in last) and "--resume" in last, last
    assert not (run / "summary.json").exists()
    resumed = tiny.genret("train", tiny.recipe, "--run", run, "--resume", "--json", home=home)
    assert resumed.code == 0, resumed.err
    assert resumed.document["evaluation"] == json.loads((tiny.run / "summary.json").read_text())["evaluation"]


@pytest.mark.parametrize("target", ["genret.search.thumbnails.thumbnail", "genret.catalog.store.Upsert._flush"])
def test_a_full_disk_while_indexing(tiny, run, failed, tmp_path, monkeypatch, target):
    picture = tiny.draw(tmp_path / "mine" / "one.png", "red", "cross")
    with monkeypatch.context() as patch:
        patch.setattr(target, full)
        failed(tiny.genret("index", "--run", run, picture), 1, "full", "make room")
    assert len(tiny.search("--run", run)) == 8 and not list((run / "thumbnails").rglob("*.partial"))
    assert tiny.genret("index", "--run", run, picture, "--json").document["added"] == 1


# ------------------------------------------------------------------------------------------------ spoilt runs
def repaired(tiny: Any, run: Path) -> None:
    """`train --resume` brings a spoilt run back."""
    answer = tiny.genret("train", "--run", run, "--resume", "--json")
    assert answer.code == 0, answer.err
    assert len(tiny.search("--run", run)) == 8


def test_a_catalog_from_another_run(tiny, run, failed, tmp_path):
    other = tmp_path / "other"
    assert tiny.genret("train", tiny.recipe, "--set", "train.seed=1", "--run", other, "--json").code == 0
    shutil.copy(other / "catalog.sqlite", run / "catalog.sqlite")
    for words in (["search", "a dog"], ["evaluate"], ["index", tiny.data / "00.png"]):
        failed(tiny.genret(*words, "--run", run), 1, str(run / "catalog.sqlite"), "another run")
    repaired(tiny, run)


@pytest.mark.parametrize("how", ["cut", "text", "empty", "missing", "folder", "middle"])
def test_a_damaged_catalog(tiny, run, failed, how):
    catalog = run / "catalog.sqlite"
    data = catalog.read_bytes()
    catalog.unlink()
    if how == "cut":
        catalog.write_bytes(data[: len(data) // 3])
    elif how == "text":
        catalog.write_text("this is no database, but it is long enough to look like one\n" * 100)
    elif how == "empty":
        catalog.write_bytes(b"")
    elif how == "folder":
        catalog.mkdir()
    elif how == "middle":
        catalog.write_bytes(data[:4096] + b"\xa5" * (len(data) - 4096))
    for words in (["search", "a dog"], ["evaluate"], ["index", tiny.data / "00.png"]):
        failed(tiny.genret(*words, "--run", run), 1, str(catalog))
    if how != "folder":
        repaired(tiny, run)


@pytest.mark.parametrize(
    "file",
    [
        "generator/model.safetensors", "generator/config.json", "generator/genret.json", "generator/tokenizer.json",
        "identifier/tokenizer.safetensors", "identifier/tokenizer.json", "encoder/heads.safetensors",
        "encoder/heads.json",
    ],
)  # fmt: skip
@pytest.mark.parametrize("how", ["cut", "noise", "missing"])
def test_a_damaged_model(tiny, run, failed, file, how):
    path = run / file
    data = path.read_bytes()
    path.unlink()
    if how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "noise":
        path.write_bytes(b"\xff" * len(data))
    failed(tiny.genret("search", "a dog", "--run", run), 1, str(run / file.partition("/")[0]))
    repaired(tiny, run)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "config.json", "genret.json"])
@pytest.mark.parametrize("text", ["3", "null", '"x"', "[1]", "[" * 100_000])
def test_a_generator_whose_files_hold_other_json(tiny, run, failed, file, text):
    (run / "generator" / file).write_text(text)
    answer = tiny.genret("search", "a dog", "--run", run)
    if answer.code:  # transformers does without some of them
        failed(answer, 1, str(run / "generator"))


def test_weights_that_no_generator_has(tiny, run, failed):
    path = run / "generator" / "model.safetensors"
    save_file(load_file(path) | {"surplus.weight": torch.zeros(2)}, path, {"format": "pt"})
    failed(tiny.genret("search", "a dog", "--run", run), 1, str(path.parent), "surplus.weight")


def test_weights_of_another_shape(tiny, run, failed):
    path = run / "generator" / "model.safetensors"
    tensors = load_file(path)
    path.unlink()
    save_file({name: tensor[:1].clone() for name, tensor in tensors.items()}, path, {"format": "pt"})
    failed(tiny.genret("search", "a dog", "--run", run), 1, str(run / "generator"))


@pytest.mark.parametrize("stage", ["encoder", "identifier", "generator"])
def test_a_missing_stage(tiny, run, failed, stage):
    shutil.rmtree(run / stage)
    failed(tiny.genret("search", "a dog", "--run", run), 1, str(run / stage), "genret train --run DIR --resume")
    repaired(tiny, run)


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("num_beams:", "num_beam:", "did you mean 'num_beams'"),
        ("type: rq", "type: rqq", "did you mean 'rq'"),
        ("num_levels: 3", "num_levels: three", "num_levels"),
        ("search:", "search: [", "recipe.yaml"),
    ],
)
def test_an_edited_recipe(tiny, run, failed, old, new, said):
    path = run / "recipe.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    for words in (["search", "a dog"], ["evaluate"], ["index", tiny.data / "00.png"]):
        failed(tiny.genret(*words, "--run", run), 2, str(path), said)


def test_an_edited_recipe_that_fits_the_models_no_more(tiny, run, failed):
    path = run / "recipe.yaml"
    path.write_text(path.read_text().replace("num_levels: 3", "num_levels: 4"))
    failed(tiny.genret("search", "a dog", "--run", run), 1, str(run / "identifier"))


def test_a_run_without_thumbnails_still_searches(tiny, run):
    shutil.rmtree(run / "thumbnails")
    assert len(tiny.search("--run", run)) == 8
