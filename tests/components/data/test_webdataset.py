"""Tar shards: written by the webdataset library and by tarfile, read by genret."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
import webdataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from genret.api import Record
from genret.components.data.webdataset import WebDataset
from genret.errors import BadImage, GenretError, UnknownName


def dataset(root: Path, **options) -> WebDataset:
    return WebDataset(WebDataset.Config(root=root, **options))


def shard(path: Path, members: list[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def clip_benchmark(root: Path) -> None:
    """The layout of CLIP_benchmark: 11 test shards of 3 images, so that names sort wrongly as text."""
    number = 0
    for split, shards in (("train", 2), ("test", 11)):
        (root / split).mkdir(parents=True)
        (root / split / "nshards.txt").write_text(f"{shards}\n")
        for index in range(shards):
            with webdataset.TarWriter(str(root / split / f"{index}.tar")) as writer:
                for _ in range(3 if split == "test" else 40):
                    key = f"s{number:07d}"
                    writer.write({"__key__": key, "webp": f"{key}".encode(), "txt": f"{key} one\n{key} two\n"})
                    number += 1


def test_clip_benchmark_layout(tmp_path: Path):
    clip_benchmark(tmp_path)
    data = dataset(tmp_path, dev_fraction=0.2)
    test = list(data.records("test"))
    assert [record.image_id for record in test] == [f"test/{n // 3}/s{80 + n:07d}" for n in range(33)]
    assert test[4].uri == f"{tmp_path}/test/1.tar:s0000084.webp"
    assert test[4].captions == ("s0000084 one", "s0000084 two")
    for record in reversed(test):  # random access, across shards
        assert data.read(record) == record.image_id.rpartition("/")[2].encode()
    train, dev = list(data.records("train")), list(data.records("dev"))
    assert len(train) + len(dev) == 80 and 3 < len(dev) < 35
    assert not {record.image_id for record in train} & {record.image_id for record in dev}
    assert list(dataset(tmp_path, dev_fraction=0.2).records("dev")) == dev


def test_flat_shards_braces_and_metadata(tmp_path: Path):
    for index in range(8, 12):
        members = [(f"k{index}.jpg", b"J"), (f"k{index}.txt", b"a"), (f"k{index}.json", b'{"year": 3, "x": [1]}')]
        shard(tmp_path / f"shard-{index:03}.tar", members)
    data = dataset(tmp_path, train="shard-{008..009}.tar", dev="shard-010.tar", test="shard-{011,008}.tar")
    assert [record.image_id for record in data.records("train")] == ["shard-008/k8", "shard-009/k9"]
    assert [record.image_id for record in data.records("test")] == ["shard-011/k11", "shard-008/k8"]
    assert [record.metadata for record in data.records("dev")] == [{"year": 3}]


def test_clip_benchmark_as_its_builder_writes_it(tmp_path: Path):
    """`convert_dataset`: shards of a few samples, `cls` labels, class names above the splits, odd suffixes of files
    that were copied; captions in JSON as img2dataset has them."""
    (tmp_path / "classnames.txt").write_text("tench\ngold fish\n")
    (tmp_path / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\n")
    (tmp_path / "dataset_type.txt").write_text("retrieval\n")
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        with webdataset.ShardWriter(str(tmp_path / split / "%d.tar"), maxcount=2, verbose=0) as sink:
            for index in range(5):
                sample = {"__key__": f"s{index:07d}", "cls": index % 3}
                if index < 3:
                    sample |= {"jpg" if index else ".jpg": b"J%d" % index, "txt": "a fish\n\na tench\n"}
                else:
                    sample |= {"png": b"P%d" % index, "json": {"caption": ["a", " b "][: index - 2], "width": 7}}
                sink.write(sample)
            count = sink.shard
        (tmp_path / split / "nshards.txt").write_text(f"{count}\n")
    data = dataset(tmp_path)
    records = list(data.records("test"))
    assert [record.image_id for record in records] == [f"test/{n // 2}/s{n:07d}" for n in range(5)]
    assert [data.read(record) for record in records] == [b"J0", b"J1", b"J2", b"P3", b"P4"]
    assert [record.captions for record in records] == [("a fish", "a tench")] * 3 + [("a",), ("a", "b")]
    assert [record.metadata for record in records] == [
        {"class": "tench"}, {"class": "gold fish"}, {"class": "2"},
        {"class": "tench", "width": 7}, {"class": "gold fish", "width": 7},
    ]  # fmt: skip
    (tmp_path / "classnames.txt").write_bytes(b"\xff")
    with pytest.raises(GenretError, match=r"classnames\.txt cannot be read"):
        list(dataset(tmp_path).records("test"))


def test_macos_litter_is_passed_over(tmp_path: Path):
    members = []
    for key in ("000", "001"):
        for name in (f"{key}.png", f"{key}.txt"):
            members += [(f"./._{name}", b"\0\5\x16\7Mac OS X"), (f"./{name}", key.encode())]
    members += [("./.DS_Store", b"x"), ("__MACOSX/._000.png", b"x"), ("__MACOSX/000.png", b"x")]
    path = shard(tmp_path / "test/0.tar", members)
    data = dataset(tmp_path)
    records = list(data.records("test"))
    assert [record.image_id for record in records] == ["test/0/./000", "test/0/./001"]
    assert [record.captions for record in records] == [("000",), ("001",)]
    assert [data.read(record) for record in records] == [b"000", b"001"]
    library = [sample["__key__"] for sample in webdataset.WebDataset(str(path), shardshuffle=False)]
    assert [f"test/0/{key}" for key in library if "MACOSX" not in key] == [record.image_id for record in records]


def test_a_second_image_of_a_sample_is_named(tmp_path: Path):
    names = ("IMG_00.0.png", "IMG_00.0.txt", "IMG_00.1.png", "IMG_00.1.txt")
    shard(tmp_path / "test/0.tar", [(name, name.encode()) for name in names])
    with pytest.raises(GenretError, match=r"0\.tar has two images .*IMG_00\.0\.png and IMG_00\.1\.png"):
        list(dataset(tmp_path).records("test"))


def test_samples_of_several_images_say_which(tmp_path: Path):
    names = ("a.input.png", "a.target.png", "a.txt", "b.target.png", "b.input.png", "b.txt")
    shard(tmp_path / "test/0.tar", [(name, name.encode()) for name in names])
    for suffix in ("input.png", "target.png"):
        data = dataset(tmp_path, image_suffix=suffix)
        assert [data.read(record) for record in data.records("test")] == [f"{key}.{suffix}".encode() for key in "ab"]
    with pytest.raises(GenretError, match="has no images"):
        list(dataset(tmp_path, image_suffix="webp").records("test"))


def test_pictures_that_cannot_be_read_are_samples_too(tmp_path: Path):
    """Where they are decoded they are reported; beside one that can be read they are not needed."""
    shard(
        tmp_path / "test/0.tar", [("a.jxl", b"x"), ("a.txt", b"y"), ("b.dng", b"x"), ("b.jpg", b"J"), ("b.svg", b"x")]
    )
    data = dataset(tmp_path)
    assert [data.read(record) for record in data.records("test")] == [b"x", b"J"]


def test_a_share_that_holds_no_image_is_to_be_raised(tmp_path: Path):
    shard(tmp_path / "train/0.tar", [(f"{n}.png", b"x") for n in range(20)])
    with pytest.raises(GenretError, match=r"the split 'dev' of .* has no images: of 20 .*raise dataset\.dev_fraction"):
        list(dataset(tmp_path, dev_fraction=0.001).records("dev"))
    with pytest.raises(GenretError, match=r"the split 'train' .*lower dataset\.dev_fraction"):
        list(dataset(tmp_path, dev_fraction=0.999).records("train"))
    assert len(list(dataset(tmp_path, dev_fraction=0.001).records("train"))) == 20


def test_texts_with_byte_order_marks_and_lists_in_texts(tmp_path: Path):
    members = [("a.png", b"x"), ("a.txt", "\ufeffsüß\n".encode()), ("b.png", b"x"), ("b.txt", "süß".encode("utf-16"))]
    members += [("c.png", b"x"), ("c.json", '\ufeff{"caption": "[\\"one\\", \\"two\\"]"}'.encode())]
    shard(tmp_path / "test/0.tar", members)
    assert [record.captions for record in dataset(tmp_path).records("test")] == [("süß",), ("süß",), ("one", "two")]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_tar_format_and_long_names(tmp_path: Path, format):
    long = "d/" + ("n" * (90 if format == tarfile.USTAR_FORMAT else 180))
    shard(tmp_path / "test/0.tar", [(f"{long}.png", b"P" * 1000), (f"{long}.txt", "ü".encode())], format)
    data = dataset(tmp_path)
    (record,) = data.records("test")
    assert record.image_id == f"test/0/{long}" and record.captions == ("ü",) and data.read(record) == b"P" * 1000


def test_what_is_no_ordinary_file_is_left_out(tmp_path: Path):
    (tmp_path / "test").mkdir()
    with tarfile.open(tmp_path / "test/0.tar", "w") as tar:
        for name, kind in (("a.png", tarfile.SYMTYPE), ("b.png", tarfile.LNKTYPE), ("c.png", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        for name in ("d.pkl", "d.pyd", "d.png", "../e.png"):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    data = dataset(tmp_path)
    records = list(data.records("test"))
    assert [record.image_id for record in records] == ["test/0/d", "test/0/../e"]
    assert [data.read(record) for record in records] == [b"abc", b"abc"]  # read inside the tar, never beside it
    with pytest.raises(BadImage, match="no image in a tar shard"):
        data.read(Record("x", f"{tmp_path}/test/0.tar:a.png"))
    with pytest.raises(BadImage, match="no image in a tar shard"):
        data.read(Record("x", f"{tmp_path}/test/0.tar:d.pkl"))
    with pytest.raises(BadImage, match="not below"):
        data.read(Record("x", "/somewhere/else.tar:a.png"))


def test_hostile_sizes(tmp_path: Path):
    shard(tmp_path / "test/0.tar", [("a.png", b"x"), ("a.txt", b"y" * (2**20 + 1))])
    with pytest.raises(GenretError, match=r"0.tar:a.txt has 1,048,577 bytes, more than"):
        list(dataset(tmp_path).records("test"))
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 8 * 2**30
    (tmp_path / "test/0.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(GenretError, match=r"0.tar is damaged .*header claims"):
        list(dataset(tmp_path).records("test"))


@pytest.mark.parametrize("kept", [0, 100, 700, 1536, 2048, 3000])
def test_truncated_shards_are_errors_not_ends(tmp_path: Path, kept):
    path = shard(tmp_path / "test/0.tar", [(f"{name}.png", b"x" * 600) for name in "abc"])
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(GenretError, match=r"0.tar is damaged|0.tar cannot be read"):
        list(dataset(tmp_path).records("test"))


def test_a_damaged_header_in_the_middle_is_an_error(tmp_path: Path):
    path = shard(tmp_path / "test/0.tar", [(f"{name}.png", b"x" * 600) for name in "abc"])
    data = bytearray(path.read_bytes())
    data[1536 + 150] ^= 1  # the checksum of the second header
    path.write_bytes(data)
    with pytest.raises(GenretError, match="damaged"):
        list(dataset(tmp_path).records("test"))


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([("a.png", b"x"), ("b.png", b"x"), ("a.txt", b"y")], "two samples named a"),
        ([("a.png", b"x"), ("a.json", b"{")], "a.json is no JSON"),
        ([("a.png", b"x"), ("a.json", b'{"caption": [1]}')], "a.json: 'caption' is no text"),
        ([("a.png", b"x"), ("a.cls", b"9" * (2**20 + 1))], "a.cls has 1,048,577 bytes"),
        ([("a.png", b"x"), ("a.txt", b"\xff")], "a.txt is no UTF-8"),
        ([("a.txt", b"x")], "the split 'test' .* has no images"),
    ],
)
def test_wrong_contents_are_one_sentence(tmp_path: Path, members, says):
    shard(tmp_path / "test/0.tar", members)
    with pytest.raises(GenretError, match=says):
        list(dataset(tmp_path).records("test"))


def test_wrong_options(tmp_path: Path):
    clip_benchmark(tmp_path)
    (tmp_path / "test" / "3.tar").unlink()
    with pytest.raises(GenretError, match=r"nshards.txt says 11 shards, there are 10"):
        list(dataset(tmp_path).records("test"))
    with pytest.raises(GenretError, match=r"no shard .*val/\*.tar exists"):
        list(dataset(tmp_path, test="val/*.tar").records("test"))
    with pytest.raises(GenretError, match=r"3.tar does not exist"):
        list(dataset(tmp_path, test="test/{2..4}.tar").records("test"))
    with pytest.raises(GenretError, match="must lie below"):
        list(dataset(tmp_path, test="../*.tar").records("test"))
    with pytest.raises(GenretError, match="more than 100,000"):
        list(dataset(tmp_path, test="{0..999999999}.tar").records("test"))
    with pytest.raises(UnknownName, match="'val'"):
        list(dataset(tmp_path).records("val"))
    with pytest.raises(ValidationError, match="different shards"):
        dataset(tmp_path, dev="train/*.tar")


def test_compressed_shards_are_refused(tmp_path: Path):
    (tmp_path / "test").mkdir()
    with tarfile.open(tmp_path / "test/0.tar", "w:gz"):
        pass
    with pytest.raises(GenretError, match="no uncompressed tar"):
        list(dataset(tmp_path).records("test"))


@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6), st.integers(0, 5000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_damaged_shards_are_read_or_refused(tmp_path: Path, changes, kept):
    path = shard(tmp_path / "test/0.tar", [("a.png", b"x" * 600), ("a.txt", b"one"), ("b.png", b"y" * 10)])
    data = bytearray(path.read_bytes()[:kept])
    for place, value in changes:
        if place < len(data):
            data[place] = value
    path.write_bytes(data)
    shards = dataset(tmp_path)
    try:
        for record in shards.records("test"):
            shards.read(record)
            record.uri.encode()
    except GenretError as error:
        assert "\n" not in str(error)
