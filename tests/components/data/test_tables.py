"""Caption tables as they are published, small copies of each; what was understood is said."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from pydantic import ValidationError

from genret.components.data import text
from genret.components.data.folder import FolderDataset
from genret.errors import GenretError

FLICKR8K = (
    "image,caption\n"
    "1000_a.jpg,A child in a pink dress is climbing up a set of stairs .\n"
    '1000_a.jpg,"A black dog , and a white one ."\n'
    '1001_b.jpg,"Two ""quoted"" dogs ."\n'
)
RESULTS = (
    "image_name| comment_number| comment\n"
    '1000_a.jpg| 0| Two young guys with "shaggy" hair , look at their hands .\n'
    "1000_a.jpg| 1| Two males .\n"
    "2199200615.jpg| 3| A dog runs .\n"
    "2199200615.jpg| 4   A dog runs across the grass .\n"
)
TOKENS = (
    "1000_a.jpg#0\tA child in a pink dress , #1 of two .\n"
    "1000_a.jpg#1\tA girl going into a building .\n"
    "2258277193_586949ec62.jpg.1#0\tpeople waiting for the subway\n"
    "1001_b.jpg#0\tA dog .\n"
)
COCO = {
    "info": {"year": 2017},
    "images": [{"id": 9, "file_name": "b.jpg", "width": 640}, {"id": 3, "file_name": "a.jpg", "width": 480}],
    "annotations": [
        {"image_id": 3, "id": 1, "caption": "A woman."},
        {"image_id": 9, "id": 2, "caption": "A bear\n"},
        {"image_id": 3, "id": 3, "caption": "A person"},
    ],
}
BLIP_TRAIN = [
    {"image": "a.jpg", "caption": "one", "image_id": "coco_3"},
    {"image": "a.jpg", "caption": "two", "image_id": "coco_3"},
    {"image": "b.jpg", "caption": "three", "image_id": "coco_9"},
]
BLIP_TEST = [{"image": "b.jpg", "caption": ["one", "two"]}, {"image": "a.jpg", "caption": ["three"]}]
FLICKR30K_HUB = (
    "raw,sentids,split,filename,img_id\n"
    '"[""Two men"", ""One, two""]","[0, 1]",train,1000.jpg,0\n'
    '"[""A dog""]","[2]",val,1001.jpg,1\n'
    '"[""A cat""]","[3]",test,1002.jpg,2\n'
)


def dataset(root: Path, name: str, content: str | bytes, **options) -> FolderDataset:
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    options = {"captions": name, "dev_fraction": 0, "test_fraction": 0} | options
    return FolderDataset(FolderDataset.Config(root=root, **options))


def said(caplog) -> list[str]:
    """Each line once: `captions` reads a table several times."""
    return list(dict.fromkeys(record.message for record in caplog.records))


def captions(data: FolderDataset, split: str = "train") -> dict[str, tuple[str, ...]]:
    """Of all images, after making files for those the table names."""
    while True:
        try:
            return {record.image_id: record.captions for record in data.records(split)}
        except GenretError as error:
            if "the first is " not in str(error):
                raise
            missing = Path(str(error).partition("the first is ")[2].partition(";")[0])
            missing.parent.mkdir(parents=True, exist_ok=True)
            missing.write_bytes(b"x")


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        (
            "captions.txt",
            FLICKR8K,
            {
                "1000_a.jpg": (
                    "A child in a pink dress is climbing up a set of stairs .",
                    "A black dog , and a white one .",
                ),
                "1001_b.jpg": ('Two "quoted" dogs .',),
            },
        ),
        (
            "results.csv",
            RESULTS,
            {
                "1000_a.jpg": ('Two young guys with "shaggy" hair , look at their hands .', "Two males ."),
                "2199200615.jpg": ("A dog runs .", "A dog runs across the grass ."),
            },
        ),
        (
            "Flickr8k.token.txt",
            TOKENS,
            {
                "1000_a.jpg": ("A child in a pink dress , #1 of two .", "A girl going into a building ."),
                "1001_b.jpg": ("A dog .",),
            },
        ),
        ("captions_val2017.json", json.dumps(COCO), {"b.jpg": ("A bear",), "a.jpg": ("A woman.", "A person")}),
        ("blip_train.json", json.dumps(BLIP_TRAIN), {"a.jpg": ("one", "two"), "b.jpg": ("three",)}),
        ("blip_test.json", json.dumps(BLIP_TEST, indent=1), {"b.jpg": ("one", "two"), "a.jpg": ("three",)}),
        ("lines.json", '{"image": "a.jpg", "caption": "one"}\n{"image": "b.jpg", "caption": ["two"]}\n',
         {"a.jpg": ("one",), "b.jpg": ("two",)}),
        ("lines.txt", '{"image": "a.jpg", "captions": ["one", "two"]}\n', {"a.jpg": ("one", "two")}),
        ("metadata.csv", 'file_name,text\na.png,"a, b"\n', {"a.png": ("a, b",)}),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "a b"}\n', {"a.png": ("a b",)}),
    ],
)  # fmt: skip
def test_published_tables_are_read_by_their_content(tmp_path: Path, name, content, wanted, caplog):
    assert captions(dataset(tmp_path, name, content)) == wanted
    count = sum(map(len, wanted.values()))
    (line,) = said(caplog)
    assert f"{len(wanted)} images, {count} captions" in line and name in line


def test_what_was_mended_or_passed_over_is_said(tmp_path: Path, caplog):
    captions(dataset(tmp_path, "results.csv", RESULTS))
    captions(dataset(tmp_path, "Flickr8k.token.txt", TOKENS))
    first, second = said(caplog)
    assert "a table with bars, image 'image_name', caption 'comment'" in first and first.endswith(
        "broken rows mended: 1"
    )
    assert second.endswith("captions passed over, of names without an image's suffix: 1")


def test_a_plain_table_is_no_news(tmp_path: Path, caplog):
    caplog.set_level(logging.INFO)
    captions(dataset(tmp_path, "c.csv", "image,caption\na.png,b\n"))
    assert {record.levelno for record in caplog.records} == {logging.INFO}
    assert "a table with commas" in said(caplog)[0]


def test_metadata_of_published_tables(tmp_path: Path):
    data = dataset(tmp_path, "captions_val2017.json", json.dumps(COCO))
    captions(data)
    assert [record.metadata for record in data.records("train")] == [{"id": 9, "width": 640}, {"id": 3, "width": 480}]
    data = dataset(tmp_path, "results.csv", RESULTS)
    captions(data)
    assert [dict(record.metadata) for record in data.records("train")] == [{}, {}]


def test_the_published_flickr30k_table(tmp_path: Path, caplog):
    data = dataset(tmp_path, "flickr.csv", FLICKR30K_HUB)
    assert captions(data) == {"1000.jpg": ("Two men", "One, two")}
    assert captions(data, "dev") == captions(data, "val") == {"1001.jpg": ("A dog",)}
    assert captions(data, "test") == {"1002.jpg": ("A cat",)}
    table, dev = said(caplog)
    assert table.endswith("splits train (1), val (1), test (1)")
    assert dev.endswith("has no split 'dev'; 'val' is taken for it")


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        ('["a dog", "a cat"]', ("a dog", "a cat")),
        (' ["\\u00fc"] ', ("ü",)),
        ("[]", ()),
        ("['a dog', \"it's a cat\"]", ("a dog", "it's a cat")),  # as pandas writes lists
        ("['it\\'s \\xfc', 'b',]", ("it's ü", "b")),
        ("[Music]", ("[Music]",)),
        ("[1]", ("[1]",)),
        ("['a' + 'b']", ("['a' + 'b']",)),
        ("[" * 9000 + "]" * 9000, ("[" * 9000 + "]" * 9000,)),
        ("a [dog]", ("a [dog]",)),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_cell_may_hold_a_list_of_captions(tmp_path: Path, cell, wanted, kind):
    quoted = cell.replace('"', '""')
    content = f'image,caption\na.png,"{quoted}"\n' if kind == "csv" else json.dumps({"image": "a.png", "caption": cell})
    assert captions(dataset(tmp_path, f"c.{kind}", content)) == {"a.png": wanted}


def test_a_null_is_no_caption_and_no_metadata(tmp_path: Path):
    rows = [
        '{"image": "a.png", "caption": null, "size": NaN, "year": -1e999}',
        '{"image": "b.png", "caption": ["x", null]}',
    ]
    data = dataset(tmp_path, "c.jsonl", "\n".join(rows))
    assert captions(data) == {"a.png": (), "b.png": ("x",)}
    assert [record.metadata for record in data.records("train")] == [{}, {}]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("start", ["", "\ufeff", "sep={}\n"])
def test_other_delimiters(tmp_path: Path, delimiter, start):
    lines = [["image", "caption", "year"], ["a.png", "one, two, three; four", "2001"]]
    rows = [delimiter.join(f'"{cell}"' if ";" in cell else cell for cell in line) for line in lines]
    data = dataset(tmp_path, "c.csv", start.format(delimiter) + "\n".join(rows) + "\n")
    assert captions(data) == {"a.png": ("one, two, three; four",)}
    assert next(data.records("train")).metadata == {"year": "2001"}


def test_a_delimiter_may_be_said(tmp_path: Path):
    assert captions(dataset(tmp_path, "c.csv", "image:caption\na.png:b\n", delimiter=":")) == {"a.png": ("b",)}
    for wrong in ('"', "\n", "", "ab"):
        with pytest.raises(ValidationError):
            dataset(tmp_path, "c.csv", "", delimiter=wrong)


def test_a_format_may_be_said(tmp_path: Path):
    assert captions(dataset(tmp_path, "c.dat", "image,caption\na.png,b\n", format="csv")) == {"a.png": ("b",)}
    assert captions(dataset(tmp_path, "c.dat", "a.png#0\tb\n", format="token")) == {"a.png": ("b",)}
    assert captions(dataset(tmp_path, "c.dat", json.dumps(BLIP_TEST), format="json"))["a.jpg"] == ("three",)
    with pytest.raises(GenretError, match=r"c\.dat line 2 is not 'image#number"):
        captions(dataset(tmp_path, "c.dat", "a.png#0\tb\nc\n", format="token"))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_of_nothing_are_passed_over(tmp_path: Path, end):
    lines = ["", "image,caption,,", "a.png,one,,", ",,,", " , ,,", "b.png,two,,", ",,,", ",,,", ""]
    assert captions(dataset(tmp_path, "c.csv", end.join(lines))) == {"a.png": ("one",), "b.png": ("two",)}


@pytest.mark.parametrize(
    ("encoding", "option"), [("utf-16", None), ("utf-8-sig", None), ("latin-1", "latin-1"), ("utf-16-le", "utf-16-le")]
)
@pytest.mark.parametrize("name", ["c.csv", "c.jsonl", "c.json", "c.token"])
def test_encodings(tmp_path: Path, encoding, option, name):
    content = {
        "c.csv": "image,caption\na.png,süß\n",
        "c.jsonl": '{"image": "a.png", "caption": "süß"}\n',
        "c.json": '[{"image": "a.png", "caption": "süß"}]',
        "c.token": "a.png#0\tsüß\n",
    }[name]
    assert captions(dataset(tmp_path, name, content.encode(encoding), encoding=option)) == {"a.png": ("süß",)}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("c.csv", "image:caption:split\na:b:train\n", "its only column is 'image:caption:split'.*or dataset.delimiter"),
        ("c.csv", "picture;words\na;b\n", "no image in column 'image'; its columns are 'picture', 'words'; set"),
        ("c.csv", "image,words,x\na,b,c\n", "no caption in column 'caption'; its columns are 'image', 'words', 'x'"),
        ("c.csv", "image,caption\na,b\na,\"b\" c\n", r"c\.csv line 3: ',' expected after"),
        ("c.csv", "image,caption,caption\na,b,c\n", r"c\.csv line 1: two columns are called 'caption'; give each"),
        ("c.jsonl", '{"image": "a"}', "line 1: no caption in column 'caption'; its only column is 'image'"),
        ("c.csv", 'image,caption\na,"b\nc\nd\n', r"lines 2 to 4: unexpected end"),
        ("c.csv", 'image,caption\na,"b\nc"\nd\n', r"line 4: not as many columns"),
        ("c.csv", b"image,caption\na,s\xfc\xdf\n", r"no UTF-8 text.*set dataset\.encoding .*cp1252"),
        ("c.jsonl", b'{"image": "a", "caption": "s\xfc"}\n', r"no UTF-8 text.*set dataset\.encoding"),
        ("c.json", b'[{"image": "a", "caption": "s\xfc"}]', r"no UTF-8 text"),
        ("c.csv", "image,caption\na,b\n".encode("utf-16-be"), r"looks like UTF-16.*set dataset\.encoding .*utf-16-le"),
        ("c.json", "[]".encode("utf-16-le"), r"looks like UTF-16"),
        ("c.json", "{", "c.json is no JSON"),
        ("c.json", "[1]", "entry 1 is no JSON object"),
        ("c.json", "[]", "no rows"),
        ("c.json", '{"a": 1}', "no array of objects"),
        ("c.json", '{"images": [{"filename": "a", "sentences": []}]}', "dataset.type: karpathy"),
        ("c.json", '{"images": [{"id": []}], "annotations": []}', 'image 1 has no "id"'),
        ("c.json", '{"images": [{"id": 1}], "annotations": [{"caption": "x", "image_id": 2}]}', "annotation 1"),
        ("c.json", '{"images": [{"id": 1}], "annotations": [{"image_id": 1, "bbox": []}]}', "captions_.*json"),
        ("c.json", '{"images": [{"id": 1}], "annotations": []}', "image 1: no image in column 'image'"),
        ("c.json", "[" * 100_000, "no JSON"),
    ],
)  # fmt: skip
def test_wrong_tables_are_one_sentence(tmp_path: Path, name, content, says):
    with pytest.raises(GenretError, match=says) as caught:
        list(dataset(tmp_path, name, content).records("train"))
    assert name in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 800


def test_giants_are_refused_unread(tmp_path: Path, monkeypatch):
    """A line, a row of many lines and a JSON file, sparse on disk: reading them whole would need gigabytes."""
    for name, start in (
        ("line.csv", b"image,caption\na,"),
        ("line.jsonl", b'{"image": '),
        ("line.token", b"a.png#0\tx"),
    ):
        with (tmp_path / name).open("wb") as stream:
            stream.write(start)
            stream.truncate(2**31)
        with pytest.raises(GenretError, match=rf"{name} line \d is longer than 1,048,576 characters|field larger"):
            next(FolderDataset(FolderDataset.Config(root=tmp_path, captions=name)).records("train"))
    row = "image,caption\n" + '"\n",' * 300_000
    with pytest.raises(GenretError, match=r"lines 2 to [\d]+ is longer than"):
        list(dataset(tmp_path, "row.csv", row).records("train"))
    monkeypatch.setattr(text, "MAX_JSON_BYTES", 100)
    with pytest.raises(GenretError, match=r"c\.json has 102 bytes, more than the 100 allowed for JSON; write it as"):
        list(dataset(tmp_path, "c.json", "[" + " " * 100 + "]").records("train"))


def test_a_huge_header_is_not_shown_whole(tmp_path: Path):
    header = ",".join(f"column{number}" for number in range(20_000))
    with pytest.raises(GenretError) as caught:
        list(dataset(tmp_path, "c.csv", header + "\n" + "," * 19_998 + "x,\n").records("train"))
    assert len(str(caught.value)) < 600
