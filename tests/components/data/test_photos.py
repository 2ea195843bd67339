"""Folders without captions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from genret.components.data.photos import PhotosDataset
from genret.errors import BadImage, GenretError, UnknownName
from genret.toolbox.facts import record_of


def made(root: Path, *also: Path) -> PhotosDataset:
    return PhotosDataset(PhotosDataset.Config(root=root, also=also))


def test_every_picture_of_every_folder_once_and_as_index_names_it(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    names = [one / "a.png", one / "deep" / "b.JPG", two / "c.webp"]
    for file in (*names, one / "notes.txt", one / "a.txt", one / ".hidden.png"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(file.name.encode())
    data = made(one, two, one / "deep")
    found = list(data.records("photos"))
    assert found == [record_of(file) for file in names], "captions beside them are not read"
    assert [data.read(record) for record in found] == [b"a.png", b"b.JPG", b"c.webp"]
    assert {data.train_split, data.dev_split, data.test_split} == {"photos"}
    with pytest.raises(UnknownName, match="photos"):
        list(data.records("train"))


def test_names_in_no_encoding(tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    file.write_bytes(b"odd")
    data = made(tmp_path)
    (record,) = data.records("photos")
    assert record.image_id.endswith(r"\xff.png") and data.read(record) == b"odd"


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(GenretError, match=r"no folder .*gone; set dataset\.root"):
        list(made(tmp_path / "gone").records("photos"))
    with pytest.raises(GenretError, match=r"no picture below .*; set dataset\.root"):
        list(made(tmp_path).records("photos"))
    (tmp_path / "a.png").write_bytes(b"")
    data = made(tmp_path)
    (record,) = data.records("photos")
    (tmp_path / "a.png").unlink()
    with pytest.raises(BadImage, match=r"a\.png cannot be read"):
        data.read(record)
