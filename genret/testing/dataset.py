"""`check_dataset`: stable splits, readable images, and captions that distinguish them.

N images   T captions
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F

from genret.api import Corpus, Dataset, Record
from genret.errors import BadImage, UnknownName
from genret.kit.images import decode_image
from genret.testing.config import check_config, made
from genret.testing.world.corpus import WIDTH
from genret.testing.world.expect import Checked
from genret.testing.world.miniature import expect_better_than_chance, train_and_search
from genret.testing.world.table import Table

PICTURES = 40
"""Number of images opened per split."""
LEARNT = 36
"""Number of captioned images in the miniature training."""
ROLES = {"captioned images": 3, "images": 1, "texts": 2}
"""What a data set may provide, with the number of different splits that it then has."""
SCALARS = (str, int, float, bool, type(None))


def check_dataset(dataset: type[Dataset], /, **options: Any) -> None:
    """Checks a data set with these options against its contract; `ContractError` says what to change.

    The three splits give the same records each time; ids are unique; images are readable and none is in two splits;
    unknown splits and unreadable images raise the right errors; captions distinguish training images well enough that a
    miniature training beats chance. Of `provides = "images"` and `"texts"` only what applies is checked. Options should
    select a small data set.
    """
    check_config(dataset, **options)
    checked, data = Checked(dataset), made(dataset, options)
    splits = (data.train_split, data.dev_split, data.test_split)
    checked.expect(
        data.provides in ROLES, f"provides is {data.provides!r}; say one of {', '.join(ROLES)}, or leave it out"
    )
    number = ROLES[data.provides]
    checked.expect(
        len(set(splits)) == number and all(isinstance(name, str) and name for name in splits),
        f"train_split, dev_split and test_split are {splits}; name "
        + {3: "three different splits", 2: "one to learn from and one held out", 1: "one split for all"}[number],
    )
    known = ("seen-concepts", "unseen-concepts", None)
    checked.expect(data.concepts in known, f"concepts is {data.concepts!r}; say one of {known}")
    read = {name: check_records(checked, data, made(dataset, options), name) for name in splits}
    check_ids(checked, read)
    check_refusals(checked, data)
    if data.provides == "texts":
        check_texts(checked, data, read)
        return
    check_pictures(checked, data, read)
    if data.provides == "images":
        captioned = [record.image_id for records in read.values() for record in records if record.captions]
        checked.expect(not captioned, f"{captioned[:1]} has captions, but provides says `images`; leave it out")
    else:
        check_learnable(checked, read[data.train_split])


def check_records(checked: Checked, data: Dataset, other: Dataset, split: str) -> list[Record]:
    with checked.doing(f"records('{split}') was read"):
        stream = data.records(split)
        checked.expect(
            isinstance(stream, Iterator),
            f"records() returns a {type(stream).__name__}; yield records one by one: no split has to fit into memory",
        )
        records, again, elsewhere = list(stream), list(data.records(split)), list(other.records(split))
    checked.expect(records, f"the split '{split}' is empty; give each split a picture, or name another split")
    checked.expect(
        records == again == elsewhere,
        f"records('{split}') changes from one reading to the next; sort what comes in any order (files, sets)",
    )
    for record in records:
        where = f"the record {record.image_id!r} of '{split}'"
        checked.expect(isinstance(record.image_id, str) and record.image_id, f"{where}: its image_id should be a text")
        checked.expect(isinstance(record.uri, str) and record.uri, f"{where}: its uri should be a text")
        checked.expect(
            isinstance(record.captions, tuple)
            and all(isinstance(text, str) and text.strip() for text in record.captions),
            f"{where}: its captions are {record.captions!r}; give a tuple of texts with something in them",
        )
        checked.expect(
            all(isinstance(key, str) and isinstance(value, SCALARS) for key, value in record.metadata.items()),
            f"{where}: its metadata is {dict(record.metadata)!r}; give JSON scalars by name",
        )
    return records


def check_ids(checked: Checked, read: dict[str, list[Record]]) -> None:
    seen: dict[str, str] = {}
    for split, records in read.items():
        for record in records:
            if record.image_id in seen:
                checked.fail(
                    f"the id {record.image_id!r} occurs in '{seen[record.image_id]}' and in '{split}'; make ids unique"
                )
            seen[record.image_id] = split


def check_texts(checked: Checked, data: Dataset, read: dict[str, list[Record]]) -> None:
    texts = {split: {text for record in records for text in record.captions} for split, records in read.items()}
    both = texts[data.train_split] & texts[data.dev_split]
    checked.expect(not both, f"the sentence {min(both, default='')!r} is taught and held out; keep it in one split")
    try:
        data.read(read[data.train_split][0])
    except BadImage:
        return
    checked.fail("provides says `texts`, but read() of a record returns something; raise genret.BadImage")


def check_pictures(checked: Checked, data: Dataset, read: dict[str, list[Record]]) -> None:
    seen: dict[bytes, str] = {}
    for split, records in read.items():
        opened = 0
        for record in islice(records, PICTURES):
            try:
                with checked.doing(f"read() was called for {record.image_id!r}"):
                    content = data.read(record)
                    checked.expect(
                        isinstance(content, bytes),
                        f"read() returns {type(content).__name__}; return the encoded picture's bytes (PNG, JPEG, ...)",
                    )
                    decode_image(content, record.uri)
            except BadImage:
                continue  # some images of a data set may be damaged; training skips them
            opened += 1
            digest = hashlib.sha256(content).digest()
            first = seen.setdefault(digest, split)
            checked.expect(
                first == split,
                f"a picture of '{first}' is also in '{split}' ({record.image_id!r}); keep it in one of them",
            )
        checked.expect(opened, f"no picture of '{split}' can be opened; read() has to return PNG, JPEG or WebP")


def check_refusals(checked: Checked, data: Dataset) -> None:
    try:
        list(data.records("no-such-split"))
    except UnknownName:
        pass
    except Exception as error:
        checked.fail(
            f"records('no-such-split') raises {type(error).__name__}; raise "
            "genret.UnknownName('split', name, [known names])"
        )
    else:
        checked.fail(
            "records('no-such-split') yields something; raise genret.UnknownName for splits that are not there"
        )
    try:
        data.read(Record("no-such-image", "no/such/image.png"))
    except BadImage:
        return
    except Exception as error:
        checked.fail(
            f"read() of a picture that is not there raises {type(error).__name__}; raise genret.BadImage, which is "
            "reported and skipped where others end a training of hours"
        )
    checked.fail("read() of a picture that is not there returns something; raise genret.BadImage")


def check_learnable(checked: Checked, records: list[Record]) -> None:
    captioned = [record for record in records if record.captions][:LEARNT]
    checked.expect(captioned, "no training picture has a caption; there is nothing to learn from")
    texts = [caption for record in captioned for caption in record.captions]
    owners = [row for row, record in enumerate(captioned) for _ in record.captions]
    generator = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(len(captioned), WIDTH, generator=generator), dim=-1)
    corpus = Corpus(
        [record.image_id for record in captioned], features, None, texts, features[owners], torch.tensor(owners)
    )
    with checked.doing("a small T5 was trained on its captions"):
        recall = train_and_search(corpus, Table())
    chance = min(5.0, 0.5 * len(captioned))  # with few images, guessing finds many
    advice = "Check that captions differ from picture to picture"
    expect_better_than_chance(checked, len(captioned), recall, advice, times=chance)
