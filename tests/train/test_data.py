"""A split as files and as vectors: who is dropped, and with what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from genret.api import Dataset, Record
from genret.errors import BadImage
from genret.train.data import Split, list_split


class Letters(Dataset):
    """Pictures a to d, the content of each its name's first letter; e cannot be read."""

    def records(self, split: str) -> Iterator[Record]:
        for name, count in (("a", 2), ("b", 1), ("c", 3), ("d", 1), ("e", 1), ("bb", 1)):
            yield Record(name, f"{split}/{name}", tuple(f"{name}{number}" for number in range(count)))

    def read(self, record: Record) -> bytes:
        if record.image_id == "e":
            raise BadImage("e is torn")
        return record.image_id[0].encode()


def test_files_are_dropped_with_their_captions_and_nobody_elses() -> None:
    listing = list_split(Letters(), "train")
    assert [record.image_id for record in listing.records] == ["a", "b", "c", "d", "bb"]
    assert listing.skipped == [("train/e", "e is torn")] and listing.hashes[1] == listing.hashes[4]
    kept = listing.without({listing.hashes[1], listing.hashes[3], "unknown"})
    assert [record.image_id for record in kept.records] == ["a", "c"]
    assert kept.hashes == [listing.hashes[0], listing.hashes[2]]
    pictures = kept.pictures
    assert pictures.captions == ["a0", "a1", "c0", "c1", "c2"] and pictures.owners == [0, 0, 1, 1, 1]
    assert kept.key != listing.key == listing.without(set()).key
    with pytest.raises(BadImage, match="train/c"):
        pictures.read[1]()


def test_vectors_are_dropped_with_their_captions_and_nobody_elses() -> None:
    records = [Record(name, name) for name in "abcd"]
    owners = torch.tensor([0, 0, 1, 2, 2, 2, 3])
    captions = ["a1", "a2", "b1", "c1", "c2", "c3", "d1"]
    split = Split(
        name="train",
        records=records,
        hashes=list("ABCD"),
        images=torch.arange(4)[:, None, None],
        captions=captions,
        texts=torch.arange(7)[:, None],
        owners=owners,
        skipped=[],
    )
    kept = split.without({"B", "D", "unknown"})
    assert [record.image_id for record in kept.records] == ["a", "c"] and kept.hashes == ["A", "C"]
    assert kept.images.flatten().tolist() == [0, 2]
    assert kept.captions == ["a1", "a2", "c1", "c2", "c3"] and kept.texts.flatten().tolist() == [0, 1, 3, 4, 5]
    assert kept.owners.tolist() == [0, 0, 1, 1, 1]
    assert kept.key != split.key == split.without(set()).key
    assert split.num_captionless == kept.num_captionless == 0
    assert replace(split, owners=torch.tensor([0, 0, 1, 2, 2, 2, 0])).num_captionless == 1
