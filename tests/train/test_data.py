"""A split as vectors: who is dropped, and with what."""

from __future__ import annotations

import torch

from genret.interfaces import Record
from genret.train.data import Split


def test_pictures_are_dropped_with_their_captions_and_nobody_elses():
    records = [Record(name, name) for name in "abcd"]
    owners = torch.tensor([0, 0, 1, 2, 2, 2, 3])
    captions = ["a1", "a2", "b1", "c1", "c2", "c3", "d1"]
    split = Split(
        "train", records, list("ABCD"), torch.arange(4)[:, None, None], captions, torch.arange(7)[:, None], owners, []
    )
    kept = split.without({"B", "D", "unknown"})
    assert [record.image_id for record in kept.records] == ["a", "c"] and kept.hashes == ["A", "C"]
    assert kept.images.flatten().tolist() == [0, 2]
    assert kept.captions == ["a1", "a2", "c1", "c2", "c3"] and kept.texts.flatten().tolist() == [0, 1, 3, 4, 5]
    assert kept.owners.tolist() == [0, 0, 1, 1, 1]
    assert kept.key != split.key == split.without(set()).key
