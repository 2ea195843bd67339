"""Karpathy JSON files: made small here, and Flickr8k where a copy is at hand."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from genret.components.data.karpathy import KarpathyDataset
from genret.errors import BadImage, GenretError, UnknownName
from genret.kit.images import decode_image


def png(colour: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), (colour, 0, 0)).save(out, "PNG")
    return out.getvalue()


def write(root: Path, counts: dict[str, int], name: str = "mine", filepath: str = "", **change) -> list[dict]:
    images = []
    for split, count in counts.items():
        for number in range(count):
            file = f"{split}_{number}.png"
            folder = root / "images" / filepath
            folder.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(png(len(images)))
            sentences = [{"raw": f" {split}  {number} c{c} .", "tokens": ["x"], "sentid": c} for c in range(5)]
            images.append({"filename": file, "split": split, "sentences": sentences, "imgid": number})
            if filepath:
                images[-1]["filepath"] = filepath
    (root / "dataset_mine.json").write_text(json.dumps({"images": images, "dataset": name} | change))
    return images


def dataset(root: Path, **options) -> KarpathyDataset:
    return KarpathyDataset(KarpathyDataset.Config(root=root, **options))


def ids(data: KarpathyDataset, split: str) -> list[str]:
    return [record.image_id for record in data.records(split)]


def test_splits_captions_and_pictures(tmp_path: Path):
    write(tmp_path, {"train": 30, "val": 4, "test": 5})
    data = dataset(tmp_path, dev_images=7)
    assert (data.train_split, data.dev_split, data.test_split) == ("train", "dev", "test")
    train, dev, test = (ids(data, split) for split in ("train", "dev", "test"))
    assert len(train) == 23 and len(dev) == 7 and len(test) == 5 and len(ids(data, "val")) == 4
    assert not set(train) & set(dev) and set(train) | set(dev) == {f"train_{n}.png" for n in range(30)}
    assert ids(dataset(tmp_path, dev_images=7), "dev") == dev != ids(dataset(tmp_path, dev_images=7, dev_seed=1), "dev")
    record = next(data.records("test"))
    assert record.captions == tuple(f"test 0 c{c} ." for c in range(5))
    assert decode_image(data.read(record), record.uri).getpixel((0, 0)) == (34, 0, 0)


def test_the_files_own_dev_split(tmp_path: Path):
    write(tmp_path, {"train": 3, "val": 4, "test": 5})
    data = dataset(tmp_path, dev_split="val")
    assert data.dev_split == "val" and len(ids(data, "train")) == 3 and len(ids(data, "val")) == 4


def test_coco_keeps_folders_and_counts_restval(tmp_path: Path):
    write(tmp_path, {"train": 4, "restval": 3, "val": 2, "test": 2}, filepath="val2014")
    data = dataset(tmp_path, dev_split="val")
    assert len(ids(data, "train")) == 7
    record = next(data.records("test"))
    assert record.image_id == "test_0.png" and record.uri.endswith("images/val2014/test_0.png") and data.read(record)
    data = dataset(tmp_path, dev_split="val", use_restval=False)
    assert len(ids(data, "train")) == 4 and len(ids(data, "restval")) == 3


def test_split_counts_are_checked(tmp_path: Path):
    write(tmp_path, {"train": 6, "val": 2}, name="flickr8k")
    with pytest.raises(GenretError, match=r"'train' .* has 6 images but the published flickr8k has 6,000"):
        ids(dataset(tmp_path, test_split="val", dev_images=1), "train")
    asked = {"train": 6, "val": 3}
    with pytest.raises(GenretError, match=r"'val' .* has 2 images but dataset.expect asks for 3"):
        ids(dataset(tmp_path, test_split="val", dev_images=1, expect=asked), "train")
    assert ids(dataset(tmp_path, test_split="val", dev_images=1, expect={}), "train")
    assert ids(dataset(tmp_path, test_split="val", dev_images=1, expect={"train": 6}), "train")


def test_missing_images_are_counted_and_the_first_named(tmp_path: Path):
    write(tmp_path, {"train": 6, "val": 2, "test": 3})
    for name in ("train_4.png", "test_1.png"):
        (tmp_path / "images" / name).unlink()
    with pytest.raises(GenretError, match=r"names 2 of 9 images that do not exist, the first is .*test_1.png"):
        ids(dataset(tmp_path, dev_images=2), "train")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "no split 'test', it has train \\(6\\), val \\(2\\)"),
        ({"test_split": "val", "dev_images": 6}, "dev_images is 6 but .* only 6 training"),
        ({"test_split": "val", "file": "other.json"}, "other.json cannot be read"),
        ({"test_split": "val", "images": "pics", "dev_images": 1}, "pics.* do|do not exist.*pics"),
    ],
)
def test_wrong_options_are_one_sentence(tmp_path: Path, options, says):
    write(tmp_path, {"train": 6, "val": 2})
    with pytest.raises(GenretError, match=says):
        ids(dataset(tmp_path, **options), "train")


def test_unknown_splits_folders_and_overlaps(tmp_path: Path):
    write(tmp_path, {"train": 6, "test": 2})
    with pytest.raises(UnknownName, match="unknown split 'tset', did you mean 'test'"):
        ids(dataset(tmp_path, dev_images=1), "tset")
    with pytest.raises(GenretError, match=r"no folder .*nowhere; set dataset.root"):
        ids(dataset(tmp_path / "nowhere"), "test")
    with pytest.raises(ValidationError, match="must differ"):
        dataset(tmp_path, dev_split="test")
    (tmp_path / "dataset_two.json").write_text("{}")
    with pytest.raises(GenretError, match=r"dataset_mine.json, dataset_two.json; set dataset.file"):
        ids(dataset(tmp_path), "test")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "no JSON"),
        ("[1]", "Karpathy's shape"),
        ('{"images": []}', "Karpathy's shape"),
        ('{"images": [{"filename": "a"}]}', "Karpathy's shape"),
        ('{"images": [{"filename": "a", "split": "x", "sentences": []}]}', "image a has no captions"),
        ('{"images": [{"filename": "a", "split": "x", "sentences": [{"tokens": []}]}]}', 'without "raw"'),
        ('{"images": [{"split": "x", "sentences": [{"raw": "b"}]}]}', 'no "filename"'),
        ('{"images": [{"filename": "../../etc/passwd", "split": "x", "sentences": [{"raw": "b"}]}]}', "no path below"),
        ('{"images": [{"filename": "/etc/passwd", "split": "x", "sentences": [{"raw": "b"}]}]}', "no path below"),
        ("[" * 100_000, "no JSON"),
        (
            '{"images": [' + ", ".join(['{"filename": "a", "split": "x", "sentences": [{"raw": "b"}]}'] * 2) + "]}",
            "once",
        ),
    ],
)
def test_files_of_another_shape(tmp_path: Path, content, says):
    (tmp_path / "dataset_mine.json").write_text(content)
    with pytest.raises(GenretError, match=says):
        ids(dataset(tmp_path), "test")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["images", "filename", "split", "sentences", "raw", "x"]), inner, max_size=5)
    ),
    max_leaves=12,
)


@given(JSON)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_json_is_read_or_refused(tmp_path: Path, value):
    (tmp_path / "dataset_mine.json").write_text(json.dumps({"images": [value]} if value else value))
    with pytest.raises(GenretError):
        ids(dataset(tmp_path), "test")


def test_names_that_the_disk_spells_otherwise(tmp_path: Path):
    images = write(tmp_path, {"train": 6, "test": 2})
    file = tmp_path / "dataset_mine.json"
    (tmp_path / "images" / "test_0.png").rename(tmp_path / "images" / "TEST_0.PNG")
    images[1]["filename"] = str(tmp_path / "images" / "train_1.png")
    file.write_text("\ufeff" + json.dumps({"images": images}), encoding="utf-8")
    data = dataset(tmp_path, dev_images=1)
    record = next(data.records("test"))
    assert record.image_id == "test_0.png" and record.uri.endswith("TEST_0.PNG") and data.read(record)
    assert {*ids(data, "train"), *ids(data, "dev")} == {f"train_{number}.png" for number in range(6)}


def test_a_giant_is_refused_unread(tmp_path: Path):
    with (tmp_path / "dataset_mine.json").open("wb") as stream:
        stream.truncate(2**31)
    with pytest.raises(GenretError, match=r"dataset_mine\.json has 2,147,483,648 bytes, more than the 268,435,456"):
        ids(dataset(tmp_path), "test")


def test_pictures_that_vanish_are_bad_images(tmp_path: Path):
    write(tmp_path, {"train": 6, "test": 2})
    data = dataset(tmp_path, dev_images=1)
    record = next(data.records("test"))
    Path(record.uri).unlink()
    with pytest.raises(BadImage, match=r"test_0.png cannot be read"):
        data.read(record)


def test_flickr8k():
    beside = sorted(Path(__file__).resolve().parents[4].glob("*/data/flickr8k"))  # some folder beside the checkout
    root = Path(os.environ.get("GENRET_TEST_FLICKR8K", beside[0] if beside else "flickr8k"))
    if not root.is_dir():
        pytest.skip("no Flickr8k beside the checkout; set GENRET_TEST_FLICKR8K to a copy")
    data = dataset(root, test_split="val")
    records = {split: list(data.records(split)) for split in ("train", "dev", "val")}
    assert {split: len(found) for split, found in records.items()} == {"train": 5500, "dev": 500, "val": 1000}
    assert all(len(record.captions) == 5 for found in records.values() for record in found)
    everything = {record.image_id for found in records.values() for record in found}
    assert len(everything) == 7000
    assert max(decode_image(data.read(records["val"][0]), "x").size) == 160
