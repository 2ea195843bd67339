"""Data sets of the `datasets` library, made and read on disk."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from PIL import Image

from genret.api import Record
from genret.components.data.huggingface import HuggingFaceDataset
from genret.errors import BadImage, GenretError, UnknownName

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("ignore")  # of pandas, pyarrow and fsspec


def png(colour: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), (colour, 0, 0)).save(out, "PNG")
    return out.getvalue()


def table(start: int, count: int):
    numbers = range(start, start + count)
    rows = {
        "image": [{"bytes": png(number), "path": None} for number in numbers],
        "caption": [[f"one {number}", f"two  {number}"] for number in numbers],
        "year": [2000 + number for number in numbers],
    }
    return datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    datasets.DatasetDict({"train": table(0, 40), "test": table(40, 5)}).save_to_disk(str(tmp_path / "set"))
    return tmp_path / "set"


def dataset(name: Path | str, **options) -> HuggingFaceDataset:
    return HuggingFaceDataset(HuggingFaceDataset.Config(name=str(name), **options))


def test_saved_to_disk(saved: Path):
    data = dataset(saved, metadata_columns=["year"], dev_fraction=0.2)
    test = list(data.records("test"))
    assert test[3] == Record("test/3", f"{saved}:test/3", ("one 43", "two 43"), {"year": 2043})
    assert data.read(test[3]) == png(43)  # the stored bytes, not encoded anew
    train, dev = ({record.image_id for record in data.records(split)} for split in ("train", "dev"))
    assert not train & dev and len(train | dev) == 40 and 1 < len(dev) < 20
    first = next(data.records("dev"))
    assert data.read(first) == png(int(first.image_id.rpartition("/")[2]))


def test_own_dev_split_and_wrong_names(saved: Path):
    assert dataset(saved, dev_split="validation").dev_split == "validation"
    with pytest.raises(UnknownName, match="'tset', did you mean 'test'"):
        list(dataset(saved).records("tset"))
    with pytest.raises(UnknownName, match=r"unknown column 'text'.*known: caption, image, year"):
        list(dataset(saved, caption_column="text").records("test"))
    with pytest.raises(GenretError, match=r"'year' .* holds no pictures"):
        list(dataset(saved, image_column="year").records("test"))
    with pytest.raises(GenretError, match=r"row 0 .*'year' is no text"):
        list(dataset(saved, caption_column="year").records("test"))
    with pytest.raises(BadImage, match="test/5 is no image"):
        dataset(saved).read(Record("test/5", "x"))


def test_image_folder(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for split in ("train", "test"):
        folder = tmp_path / "pics" / split
        folder.mkdir(parents=True)
        lines = ["file_name,caption"]
        for number in range(6):
            (folder / f"{number}.png").write_bytes(png(number))
            lines.append(f"{number}.png,{split} {number}")
        (folder / "metadata.csv").write_text("\n".join(lines))
    data = dataset(tmp_path / "pics")
    found = {record.captions[0]: data.read(record) for record in data.records("test")}
    assert found == {f"test {number}": png(number) for number in range(6)}


def test_lists_within_texts_and_a_share_that_holds_no_image(tmp_path: Path):
    rows = {"image": [{"bytes": png(n), "path": None} for n in range(20)], "caption": ['["one", "two"]'] * 20}
    made = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    datasets.DatasetDict({"train": made, "test": made}).save_to_disk(str(tmp_path / "set"))
    assert next(dataset(tmp_path / "set").records("test")).captions == ("one", "two")
    with pytest.raises(GenretError, match=r"the split 'dev' of .* has no images: of 20 .*raise dataset\.dev_fraction"):
        list(dataset(tmp_path / "set", dev_fraction=0.0001).records("dev"))


def test_what_cannot_be_loaded_is_one_sentence(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "empty").mkdir()
    with pytest.raises(GenretError, match=r"the data set .*empty cannot be loaded: ") as caught:
        list(dataset(tmp_path / "empty").records("test"))
    assert "\n" not in str(caught.value)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(GenretError, match=r"pip install genret\[datasets\]"):
        list(dataset("any").records("test"))
