"""What splits have in common, found by brute force and by construction, and said by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from genret.errors import GenretError
from genret.kit.captions import normalize_caption
from genret.lab.leakage.duplicates import NEAR, NEIGHBOURS, near_duplicates, same_captions, same_pictures
from genret.lab.leakage.leakage import EXAMPLES, find_leakage, read_leakage, sentences, summary
from tests.train.sides import copies_of, side, training


def test_copies_are_told_by_name() -> None:
    known, searched = side("train", "ABcdA"), side("test", "XCDAd")
    found = same_pictures(known, searched, copies_of(known, searched), left_out=True)
    assert [(leak.kind, leak.other_image_id, leak.image_id) for leak in found] == [
        ("same-file", "train/0", "test/3"),
        ("same-pixels", "train/2", "test/1"),
        ("same-file", "train/3", "test/4"),
        ("same-file", "train/4", "test/3"),
    ]
    assert all((leak.split, leak.other_split, leak.left_out) == ("test", "train", True) for leak in found)


def test_near_duplicates_are_those_of_brute_force() -> None:
    random = torch.Generator().manual_seed(1)
    known = torch.randn(300, 6, generator=random) + 3  # all alike before the mean is taken off
    queries = torch.cat([known[:40] + 0.2 * torch.randn(40, 6, generator=random), 3 + torch.randn(20, 6)])
    gone = {3, 7}
    found = near_duplicates(side("train", "A" * 300, known), side("test", "A" * 60, queries), gone)
    mean = torch.cat([known, queries]).mean(0)
    cosine = torch.nn.functional.cosine_similarity((queries - mean)[:, None], (known - mean)[None], dim=2)
    cosine[:, sorted(gone)] = -1
    assert {(leak.image_id, leak.other_image_id) for leak in found} == {
        (f"test/{row}", f"train/{other}")
        for row in range(60)
        for other in cosine[row].topk(NEIGHBOURS).indices.tolist()
        if cosine[row, other] >= NEAR
    }
    assert len({leak.image_id for leak in found}) > 20


def test_captions_of_the_same_words() -> None:
    known = side("train", "ABC", captions=("A dog, running .", "two cats", "keycap #"))
    searched = side("test", "XYZ", captions=("a DOG running", "two  dogs", "keycap *"))
    (leak,) = same_captions(known, searched, ())
    assert (leak.caption, leak.image_id, leak.other_image_id) == ("a DOG running", "test/0", "train/0")
    assert same_captions(known, searched, {0}) == [], "a picture that was left out takes its captions with it"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("A T-shirt.", "a t shirt", True),
        ("“Hello”, he said", "hello he said", True),
        ("keycap #", "keycap *", False),
        ("!", "?", False),
        ("café", "cafe\u0301", True),
        ("1.5 dogs", "15 dogs", True),
    ],
)
def test_wording(one: str, other: str, same: bool) -> None:
    assert (normalize_caption(one) == normalize_caption(other)) is same


def test_everything_of_three_splits(tmp_path: Path) -> None:
    words = tuple(f"word {number}" for number in range(9))
    train = side("train", "ABCDEF", captions=(*words[:5], "a dog"))
    dev, test = side("dev", "GHA", captions=words[5:8]), side("test", "bGJ", captions=(words[1], "x", "A dog."))
    splits = training(train, dev, test)
    assert {one.row for found in splits.copies.values() for one in found} == {0, 1}
    found = find_leakage(splits)
    assert [(leak.kind, leak.other_image_id, leak.image_id, leak.left_out) for leak in found.leaks] == [
        ("same-file", "train/0", "dev/2", True),
        ("same-pixels", "train/1", "test/0", True),
        ("same-file", "dev/0", "test/1", False),
        ("same-caption", "train/5", "test/2", False),
    ], "the caption of the picture that training goes without is no leak"
    found.write(tmp_path)
    told = read_leakage(tmp_path, "test")
    assert told == summary(found, "test") and [group["leaks"] for group in told["groups"]] == [1, 1, 1]
    said = "\n".join(sentences(told, "test"))
    assert "train/1 is test/0" in said and '"A dog" of test/2, as of train/5' in said and "dev/0 is test/1" in said
    assert "none found" in sentences(summary(found._replace(leaks=[]), "test"), "test")[0]
    assert "not looked for" in sentences(read_leakage(tmp_path / "elsewhere", "test"), "test")[0]
    (tmp_path / "leakage.json").write_text("{}")
    with pytest.raises(GenretError, match=r"cannot be used.*--resume"):
        read_leakage(tmp_path, "test")


def test_shared_concepts_do_not_drown_the_reader() -> None:
    names = tuple(f"emoji {number}" for number in range(20))
    train, test = side("train", "ABCDEFGHIJ" * 2, captions=names), side("test", "KLMNOPQRST" * 2, captions=names)
    nothing = side("dev", "U", captions=("none of these",))
    found = find_leakage(training(train, nothing, test, "seen-concepts"))
    (line,) = sentences(summary(found, "test"), "test")
    assert "20 captions" in line and "by design" in line and "emoji 3" not in line
    (line,) = sentences(summary(found._replace(concepts=None), "test"), "test")
    assert line.count("test/") == EXAMPLES and "all in leakage.json" in line
