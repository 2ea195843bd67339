"""Numeric, string and atomic identifiers: numbers held against Python's own digits and strings."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genret.api import Corpus, FitContext, Identifier
from genret.components.identifiers.atomic import AtomicIdentifier
from genret.components.identifiers.known import KnownImages
from genret.components.identifiers.numeric import NumericIdentifier, digits
from genret.components.identifiers.string import StringIdentifier
from genret.errors import GenretError, UsageError

SCHEMES = [NumericIdentifier, StringIdentifier, AtomicIdentifier]
names = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=40, unique=True)


def corpus(image_ids: list[str], named_before: int = 0) -> Corpus:
    return Corpus(image_ids, torch.randn(len(image_ids), 4), named_before=named_before)


def context(seed: int = 0) -> FitContext:
    nothing: Any = None
    return FitContext(seed, torch.device("cpu"), Path(), nothing, lambda row: None)


def fitted(scheme: type[Identifier], image_ids: list[str], seed: int = 0, **options: Any) -> Any:
    identifier = scheme(scheme.Config(**options))
    identifier.fit(corpus(image_ids), {}, context(seed))
    return identifier


def numbers(identifier: Identifier, images: Corpus) -> list[int]:
    """What is written, read by Python."""
    found = identifier.identify(images)
    assert found.owners.tolist() == list(range(len(images.image_ids)))
    if found.texts is not None:
        assert all(text == str(int(text)) for text in found.texts), "no zeros in front"
        return [int(text) for text in found.texts]
    assert found.codes is not None and found.codes.dtype == torch.int64
    sizes = torch.tensor(identifier.vokens.sizes)
    assert bool((found.codes >= 0).all()) and bool((found.codes < sizes).all())
    if isinstance(identifier, AtomicIdentifier):
        return found.codes[:, 0].tolist()
    return [int("".join(map(str, row))) for row in found.codes.tolist()]


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(deadline=None, max_examples=40)
@given(image_ids=names, seed=st.integers(0, 3))
def test_the_fit_counts_its_images_and_a_saved_scheme_counts_alike(scheme, image_ids, seed):
    identifier = fitted(scheme, image_ids, seed)
    found = numbers(identifier, corpus(image_ids))
    assert sorted(found) == list(range(len(image_ids)))
    some = image_ids[::2]
    assert numbers(identifier, corpus(some, named_before=7)) == found[::2], "whoever else is asked for"
    with TemporaryDirectory() as folder:
        identifier.save(Path(folder))
        again = scheme(identifier.config)
        again.load(Path(folder))
    assert numbers(again, corpus(image_ids)) == found
    assert again.vokens == identifier.vokens


@pytest.mark.parametrize("scheme", [NumericIdentifier, StringIdentifier])
@settings(deadline=None, max_examples=40)
@given(image_ids=names, new=st.integers(0, 9), named_before=st.integers(0, 40))
def test_new_images_go_on_from_those_named_before(scheme, image_ids, new, named_before):
    identifier = fitted(scheme, image_ids, **({"num_digits": 5} if scheme is NumericIdentifier else {}))
    names = [f"new image {place}" for place in range(new)]
    found = numbers(identifier, corpus([*names, image_ids[0]], named_before))
    first = len(image_ids) + named_before
    assert found[:-1] == list(range(first, first + new))
    assert found[-1:] == numbers(identifier, corpus(image_ids[:1]))
    # in two goes as in one
    assert found[:1] + numbers(identifier, corpus(names[1:], named_before + 1)) == found[: max(1, new)]


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**18 - 1), min_size=1, max_size=5))
def test_digits_are_those_of_the_written_number(values):
    written = [[int(digit) for digit in str(value).zfill(18)] for value in values]
    assert digits(torch.tensor(values), 18).tolist() == written


@pytest.mark.parametrize(("images", "width"), [(1, 2), (10, 2), (11, 3), (100, 3), (101, 4)])
def test_numbers_have_room_for_later_images(images, width):
    identifier = fitted(NumericIdentifier, [str(i) for i in range(images)])
    assert identifier.vokens.sizes == (10,) * width and identifier.vokens.num_symbols == 10


def test_numbers_that_run_out_say_what_to_do():
    ids = [str(i) for i in range(11)]
    with pytest.raises(UsageError, match=r"num_digits is 1, but 11 images need 2"):
        fitted(NumericIdentifier, ids, num_digits=1)
    identifier = fitted(NumericIdentifier, ids, num_digits=2)
    assert numbers(identifier, corpus(["last"], named_before=88)) == [99]
    with pytest.raises(GenretError, match=r"'late' would be number 100; train again with .*num_digits=3"):
        identifier.identify(corpus(["last", "late"], named_before=88))


def test_numbers_say_nothing_unless_asked_to():
    """Data sets list what belongs together together."""
    ids = [str(i) for i in range(50)]
    drawn = numbers(fitted(StringIdentifier, ids), corpus(ids))
    assert drawn == numbers(fitted(NumericIdentifier, ids), corpus(ids)), "one lot for one seed"
    assert drawn != numbers(fitted(StringIdentifier, ids, seed=1), corpus(ids))
    near = sum(abs(a - b) == 1 for a, b in pairwise(drawn))
    assert near < 10
    assert numbers(fitted(StringIdentifier, ids, order="dataset"), corpus(ids)) == list(range(50))


def test_atomic_refuses_new_images_by_name():
    identifier = fitted(AtomicIdentifier, ["a", "b", "c"])
    assert identifier.vokens.sizes == (3,)
    assert identifier.identify(corpus(["c", "a"])).codes.tolist() == [[2], [0]]
    with pytest.raises(GenretError, match=r"'x' has no atomic identifier \(nor do 1 more\)"):
        identifier.identify(corpus(["a", "x", "y"]))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_unfitted_and_damaged_schemes_are_explained(scheme, tmp_path):
    with pytest.raises(GenretError, match="not fitted yet"):
        scheme().identify(corpus(["a"]))
    with pytest.raises(GenretError, match="not fitted yet"):
        scheme().save(tmp_path)
    fitted(scheme, ["a", "b"]).save(tmp_path)
    for content in ("{", "[]", '{"image_ids": "ab"}', '{"image_ids": [1, 2]}', "[" * 100_000):
        (tmp_path / "images.json").write_text(content)
        with pytest.raises(GenretError, match=r"no usable identifier model.*train --run DIR --resume"):
            scheme().load(tmp_path)
    KnownImages(["a"]).save(tmp_path)
    if scheme is NumericIdentifier:
        for width in (0, 19, "3", None):
            (tmp_path / "digits.json").write_text(json.dumps({"num_digits": width}))
            with pytest.raises(GenretError, match="no usable identifier model"):
                scheme().load(tmp_path)
