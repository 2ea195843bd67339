"""Folders of images with captions in tables or beside the images."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from genret.api import Record
from genret.components.data.folder import FolderDataset
from genret.errors import BadImage, GenretError, UnknownName
from genret.kit import images

ROWS = [
    {"image": "a.png", "caption": "a dog", "split": "train", "year": "2001"},
    {"image": "sub/b.png", "caption": 'two, "quoted"', "split": "dev", "year": "2002"},
    {"image": "a.png", "caption": " a  black dog ", "split": "train", "year": "2001"},
    {"image": "c.png", "caption": "寿司 🍣", "split": "test", "year": "2003"},
]


def write(root: Path, kind: str, rows: list[dict]) -> str:
    for row in rows:
        if isinstance(row.get("image"), str):
            path = root / row["image"]
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_bytes(row["image"].encode())
    file = root / f"captions.{kind}"
    if kind == "jsonl":
        file.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    else:
        with file.open("w", newline="", encoding="utf-8-sig") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return file.name


def dataset(root: Path, **options) -> FolderDataset:
    return FolderDataset(FolderDataset.Config(root=root, **options))


def everything(data: FolderDataset) -> dict[str, list[Record]]:
    return {split: list(data.records(split)) for split in ("train", "dev", "test")}


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_tables_with_splits_and_metadata(tmp_path: Path, kind):
    data = dataset(tmp_path, captions=write(tmp_path, kind, ROWS))
    found = everything(data)
    assert found["train"] == [
        Record("a.png", str(tmp_path / "a.png"), ("a dog", "a black dog"), {"year": "2001"}),
    ]
    assert found["dev"][0].captions == ('two, "quoted"',) and found["test"][0].captions == ("寿司 🍣",)
    assert data.read(found["dev"][0]) == b"sub/b.png"


def test_jsonl_takes_lists_and_typed_metadata(tmp_path: Path):
    rows = [{"image": "a.png", "caption": ["one", "two"], "year": 3, "ok": True, "none": None, "nested": {"x": 1}}]
    data = dataset(tmp_path, captions=write(tmp_path, "jsonl", rows), dev_fraction=0, test_fraction=0)
    record = next(data.records("train"))
    assert record.captions == ("one", "two") and record.metadata == {"year": 3, "ok": True}


def test_other_columns_and_folders(tmp_path: Path):
    rows = [{"file": "a.png", "text": "x", "part": "training"}, {"file": "b.png", "text": "y", "part": "val"}]
    (tmp_path / "pics").mkdir()
    for row in rows:
        (tmp_path / "pics" / row["file"]).write_bytes(b"")
    options = {"image_column": "file", "caption_column": "text", "split_column": "part", "images": "pics"}
    options |= {"train_split": "training", "dev_split": "val", "test_split": "val2"}
    data = dataset(tmp_path, captions=write(tmp_path, "csv", rows), **options)
    assert data.train_split == "training" and [record.image_id for record in data.records("val")] == ["b.png"]
    with pytest.raises(UnknownName, match="known: training, val; in the column 'part'"):
        list(data.records("val2"))


def test_without_a_split_column_a_hash_decides(tmp_path: Path):
    rows = [{"image": f"{n}.png", "caption": f"c{n}"} for n in range(600)]
    file = write(tmp_path, "csv", rows)
    found = everything(dataset(tmp_path, captions=file, dev_fraction=0.2, test_fraction=0.3))
    where = {record.image_id: split for split, records in found.items() for record in records}
    assert sum(map(len, found.values())) == len(where) == 600
    assert 80 < len(found["dev"]) < 160 and 140 < len(found["test"]) < 220
    other = everything(dataset(tmp_path, captions=file, split_seed=1))
    assert {record.image_id for record in other["test"]} != {record.image_id for record in found["test"]}
    # an image more moves no other image
    write(tmp_path, "csv", [*rows, {"image": "new.png", "caption": "new"}])
    again = everything(dataset(tmp_path, captions=file, dev_fraction=0.2, test_fraction=0.3))
    moved = {record.image_id: split for split, records in again.items() for record in records}
    assert {name: moved[name] for name in where} == where


def test_sidecars(tmp_path: Path):
    for number in range(60):
        (tmp_path / f"{number:02}.jpg").write_bytes(b"x")
        (tmp_path / f"{number:02}.txt").write_text(f"first {number}\n\n  second\n")
    (tmp_path / "00.txt").unlink()
    found = everything(dataset(tmp_path, dev_fraction=0.2, test_fraction=0.2))
    by_id = {record.image_id: record for records in found.values() for record in records}
    assert len(by_id) == 60 and by_id["07.jpg"].captions == ("first 7", "second") and by_id["00.jpg"].captions == ()
    assert [record.image_id for record in found["train"]] == sorted(record.image_id for record in found["train"])


def test_encodings_of_text_files_beside_the_images(tmp_path: Path):
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(b"x")
    (tmp_path / "a.txt").write_bytes("süß\n".encode("utf-16"))
    options = {"root": tmp_path, "dev_fraction": 0, "test_fraction": 0}
    assert next(FolderDataset(FolderDataset.Config(**options)).records("train")).captions == ("süß",)
    (tmp_path / "b.txt").write_bytes("süß\n".encode("latin-1"))
    with pytest.raises(GenretError, match=r"b\.txt is no UTF-8 text.*set dataset\.encoding"):
        list(FolderDataset(FolderDataset.Config(**options)).records("train"))
    (tmp_path / "a.txt").unlink()
    found = FolderDataset(FolderDataset.Config(**options, encoding="latin-1")).records("train")
    assert [record.captions for record in found] == [(), ("süß",)]
    for wrong in ("nonsense", "rot13", "base64"):
        with pytest.raises(ValidationError, match="no text encoding"):
            FolderDataset.Config(**options, encoding=wrong)


def test_no_sidecars_at_all(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(GenretError, match=r"no image below .* has captions in a .txt file"):
        list(dataset(tmp_path, dev_fraction=0, test_fraction=0).records("train"))


def test_missing_images_are_counted_and_the_first_named(tmp_path: Path):
    file = write(tmp_path, "csv", ROWS)
    (tmp_path / "sub" / "b.png").unlink()
    (tmp_path / "sub").rmdir()
    (tmp_path / "c.png").unlink()
    with pytest.raises(GenretError, match=r"captions.csv names 2 of 3 images that do not exist, the first is .*b.png"):
        list(dataset(tmp_path, captions=file).records("train"))


def test_names_that_the_disk_spells_otherwise(tmp_path: Path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    for name in (f"{decomposed}/{decomposed}.png", "B.PNG", "Sub/c.png", "d.png", "D.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    names = [f"{composed}/{composed}.png", "b.png", "sub/C.png", "d.png", str(tmp_path / "D.png")]
    (tmp_path / "c.csv").write_text("image,caption\n" + "".join(f"{name},x\n" for name in names))
    data = dataset(tmp_path, captions="c.csv", dev_fraction=0, test_fraction=0)
    records = list(data.records("train"))
    assert [record.image_id for record in records] == [*names[:4], "D.png"]
    files = [f"{decomposed}/{decomposed}.png", "B.PNG", "Sub/c.png", "d.png", "D.png"]
    assert [data.read(record).decode() for record in records] == files
    (tmp_path / "c.csv").write_text("image,caption\nd.PNG,x\n")  # d.png or D.png?
    with pytest.raises(GenretError, match=r"names 1 of 1 images that do not exist, the first is .*d\.PNG"):
        list(dataset(tmp_path, captions="c.csv").records("train"))


def test_absolute_names_through_a_linked_root(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real" / "a.png").write_bytes(b"x")
    for root in ("real", "link"):
        (tmp_path / "real" / "c.csv").write_text(f"image,caption\n{tmp_path / 'real' / 'a.png'},x\n")
        data = dataset(tmp_path / root, captions="c.csv", dev_fraction=0, test_fraction=0)
        assert [record.image_id for record in data.records("train")] == ["a.png"]


def test_what_cannot_be_read_is_counted_by_kind(tmp_path: Path, caplog, monkeypatch):
    monkeypatch.setattr(images, "extras", frozenset)  # as without pillow-heif
    for name in ("a.png", "b.heic", "c.HEIC", "d.jxl", "e.svg", "f.cr2", "g.dng", "h.jp2", "i.mpo", "notes.md"):
        (tmp_path / name).write_bytes(b"x")
        (tmp_path / name).with_suffix(".txt").write_text("words")
    (tmp_path / "plain").write_bytes(b"\xff\xd8\xff\xe0")
    (tmp_path / "plain.txt").write_text("words")
    data = dataset(tmp_path, dev_fraction=0, test_fraction=0)
    found = [record.image_id for record in data.records("train")]
    assert found == ["a.png", "h.jp2", "i.mpo", "plain"] and found == [
        record.image_id for record in data.records("train")
    ]
    kinds = [record.message.removeprefix(f"{tmp_path}: passed over ").split(" files; ") for record in caplog.records]
    assert [kind for kind, _ in kinds] == ["1 .cr2", "1 .dng", "2 .heic", "1 .jxl", "1 .svg"]
    assert "pip install 'genret[heif]'" in kinds[2][1] and "genret[jxl]" in kinds[3][1] and "PNG" in kinds[4][1]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("c.csv", b"", "no rows"),
        ("c.csv", b"image,caption\n", "no rows"),
        ("c.csv", b"imag,caption\na,b\n", "no image in column 'image', did you mean 'imag'"),
        ("c.csv", b"image,text\na,b\n", "no caption in column 'caption'.*set dataset.caption_column"),
        ("c.csv", b"image,caption\na\n", "line 2: not as many columns"),
        ("c.csv", b"image,caption\na,b,c\n", "line 2: not as many columns"),
        ("c.csv", b'image,caption\na,"b\n', "unexpected end"),
        ("c.csv", b"image,caption\na," + b"x" * 200_000 + b"\n", "field larger"),
        ("c.csv", b"image,caption\na,\xff\n", "no UTF-8"),
        ("c.csv", b"image,caption\n../x.png,b\n", "no path below"),
        ("c.csv", b"image,caption\n/etc/passwd,b\n", "no path below"),
        ("c.csv", b"image,caption,split\na,b,train\na,c,test\n", "'test' here and in 'train' above"),
        ("c.csv", b"image,caption,split\na,b,\n", "split of a is ''"),
        ("c.jsonl", b'{"image": "a"\n', "line 1 is no JSON"),
        ("c.jsonl", b"[1]\n", "line 1 is no JSON object"),
        ("c.jsonl", b'{"image": "a", "caption": 3}\n', "line 1: no caption"),
        ("c.jsonl", b'{"image": "a", "caption": "' + b"x" * 2**20 + b'"}\n', "line 1 is longer"),
        ("c.jsonl", b'{"image": "a", "caption": "x", "n": ' + b"9" * 9999 + b"}\n", "line 1 is no JSON"),
        (
            "c.jsonl",
            b'{"image": "a", "caption": "x"}\n{"image": "b", "caption": "x", "split": "dev"}\n',
            "some rows have a 'split'",
        ),
        ("c.xlsx", b"x", "no .csv, .tsv or .jsonl"),
    ],
)
def test_wrong_tables_are_one_sentence(tmp_path: Path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(GenretError, match=says) as caught:
        list(dataset(tmp_path, captions=name).records("train"))
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_options(tmp_path: Path):
    (tmp_path / "c.csv").write_text("image,caption\na.png,b\n")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(GenretError, match=r"caption file .*d.csv cannot be read"):
        list(dataset(tmp_path, captions="d.csv").records("train"))
    with pytest.raises(UnknownName, match="'tarin', did you mean 'train'"):
        list(dataset(tmp_path, captions="c.csv").records("tarin"))
    with pytest.raises(GenretError, match=r"the split 'dev' .* has no images"):
        list(dataset(tmp_path, captions="c.csv", dev_fraction=0).records("dev"))
    with pytest.raises(ValidationError, match="nothing to train on"):
        dataset(tmp_path, dev_fraction=0.5, test_fraction=0.5)
    with pytest.raises(ValidationError, match="must differ"):
        dataset(tmp_path, dev_split="train")
    with pytest.raises(BadImage):
        dataset(tmp_path).read(Record("x", str(tmp_path / "x.png")))


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.text(max_size=20)), min_size=1, max_size=20),
    st.sampled_from(["csv", "tsv", "jsonl"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_captions_come_back(tmp_path: Path, pairs, kind):
    rows = [{"image": f"{name}.png", "caption": text.encode("utf-8", "replace").decode()} for name, text in pairs]
    options = {"captions": write(tmp_path, kind, rows), "dev_fraction": 0, "test_fraction": 0}
    found = {record.image_id: record.captions for record in dataset(tmp_path, **options).records("train")}
    wanted: dict[str, list[str]] = {}
    for row in rows:
        wanted.setdefault(row["image"], []).extend(filter(None, [" ".join(row["caption"].split())]))
    assert found == {name: tuple(captions) for name, captions in wanted.items()}


@given(st.binary(max_size=80), st.sampled_from([b"image,caption\n", b"image\tcaption\n", b'{"image": "a", ', b""]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path: Path, body, head):
    for name in ("c.csv", "c.tsv", "c.jsonl"):
        (tmp_path / name).write_bytes(head + body)
        with pytest.raises(GenretError):
            list(dataset(tmp_path, captions=name).records("train"))  # at the latest, the images are missing
