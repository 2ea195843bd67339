"""Which images are for training, development and search, where a table says it or says only part of it."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import pytest

from genret.api import Record
from genret.components.data.folder import FolderDataset
from genret.errors import GenretError, UnknownName


def write(root: Path, rows: list[dict]) -> str:
    for row in rows:
        (root / row["image"]).write_bytes(row["image"].encode())
    with (root / "captions.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return "captions.csv"


def dataset(root: Path, **options) -> FolderDataset:
    return FolderDataset(FolderDataset.Config(root=root, **options))


def everything(data: FolderDataset) -> dict[str, list[Record]]:
    return {split: list(data.records(split)) for split in ("train", "dev", "test")}


def split_rows(**counts: int) -> list[dict]:
    numbers = iter(range(10_000))
    return [
        {"image": f"{next(numbers)}.png", "caption": split, "split": split}
        for split in counts
        for _ in range(counts[split])
    ]


@pytest.mark.parametrize("name", ["val", "validation"])
def test_val_and_validation_are_for_development(tmp_path: Path, name):
    file = write(tmp_path, split_rows(train=3, **{name: 2}, test=1))
    found = everything(dataset(tmp_path, captions=file))
    assert {split: len(records) for split, records in found.items()} == {"train": 3, "dev": 2, "test": 1}
    assert all(record.captions == (name,) for record in found["dev"])
    data = dataset(tmp_path, captions=file, dev_split=name)
    assert data.dev_split == name and list(data.records(name)) == found["dev"]
    with pytest.raises(UnknownName, match="unknown split 'dev'"):
        list(data.records("dev"))  # what was named is what is taken


def test_a_dev_split_of_its_own_goes_before_val(tmp_path: Path):
    file = write(tmp_path, split_rows(train=3, dev=1, val=2, test=1))
    assert len(everything(dataset(tmp_path, captions=file))["dev"]) == 1
    with pytest.raises(GenretError, match=r"has a split 'dev' of its own; set dataset\.dev_split"):
        list(dataset(tmp_path, captions=file, dev_split=None).records("train"))


@pytest.mark.parametrize("options", [{}, {"dev_split": None}])
def test_without_a_dev_split_some_training_images_are_it(tmp_path: Path, options):
    file = write(tmp_path, split_rows(train=400, test=30))
    found = everything(dataset(tmp_path, captions=file, dev_fraction=0.2, **options))
    ids = {split: [record.image_id for record in records] for split, records in found.items()}
    # by the hash alone, so a reference computes it
    digests = {name: hashlib.sha256(f"0:{name}.png".encode()).digest()[:7] for name in range(400)}
    held_out = [f"{name}.png" for name in range(400) if int.from_bytes(digests[name], "big") < 0.2 * 2**56]
    assert ids["dev"] == held_out and 50 < len(held_out) < 110
    assert ids["train"] == [f"{name}.png" for name in range(400) if f"{name}.png" not in held_out]
    assert ids["test"] == [f"{name}.png" for name in range(400, 430)]


def test_null_takes_training_images_though_there_is_val(tmp_path: Path):
    file = write(tmp_path, split_rows(train=60, val=5, test=5))
    found = everything(dataset(tmp_path, captions=file, dev_split=None, dev_fraction=0.3))
    assert {record.captions for record in found["dev"]} == {("train",)}
    assert len(found["dev"]) + len(found["train"]) == 60


def test_val_that_is_searched_is_not_for_development(tmp_path: Path):
    file = write(tmp_path, split_rows(train=60, val=5))
    data = dataset(tmp_path, captions=file, test_split="val", dev_fraction=0.3)
    assert len(list(data.records("val"))) == 5 and {record.captions for record in data.records("dev")} == {("train",)}


def test_a_share_that_holds_no_image_is_to_be_raised(tmp_path: Path):
    file = write(tmp_path, split_rows(train=20, test=2))
    with pytest.raises(GenretError, match=r"the split 'dev' of .* has no images: of 20 .*raise dataset\.dev_fraction"):
        list(dataset(tmp_path, captions=file, dev_fraction=0).records("dev"))


def test_training_images_alone_are_no_reason_to_hold_any_out(tmp_path: Path):
    data = dataset(tmp_path, captions=write(tmp_path, split_rows(train=40)))
    assert len(list(data.records("train"))) == 40
    for split in ("dev", "test"):
        with pytest.raises(UnknownName, match=f"unknown split '{split}'; known: train.*set dataset.train_split"):
            list(data.records(split))
