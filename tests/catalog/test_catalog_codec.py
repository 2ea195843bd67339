"""Packed identifiers against Python's own comparison of tuples."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genret.catalog.codec import pack_codes, pack_texts, pack_vectors, unpack, unpack_vectors
from genret.errors import GenretError

SYMBOL = st.one_of(st.integers(0, 300), st.sampled_from([255, 256, 65534, 65535, 65536, 65537, 2**32 - 1]))


def table(sequences: list[list[int]]) -> torch.Tensor:
    width = max((len(s) for s in sequences), default=0)
    return torch.tensor([s + [-1] * (width - len(s)) for s in sequences], dtype=torch.int64).view(len(sequences), width)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.lists(SYMBOL, max_size=4), min_size=1, max_size=12))
def test_bytes_sort_as_symbols_and_come_back(sequences):
    blobs = pack_codes(table(sequences))
    order = sorted(range(len(blobs)), key=lambda i: blobs[i])
    assert [sequences[i] for i in order] == sorted(sequences)
    assert len(set(blobs)) == len({tuple(s) for s in sequences})
    codes = unpack(blobs).codes
    assert [[int(c) for c in row if c >= 0] for row in codes] == sequences


@settings(deadline=None, max_examples=50)
@given(st.lists(SYMBOL, min_size=1, max_size=4), st.lists(SYMBOL, min_size=1, max_size=4))
def test_an_identifier_packs_alike_in_any_company(one, other):
    assert pack_codes(table([one, other]))[0] == pack_codes(table([one]))[0]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(max_size=8), min_size=1, max_size=8))
def test_texts_sort_by_code_point_and_come_back(texts):
    blobs = pack_texts(texts)
    assert unpack(blobs).texts == texts
    assert [b[1:].decode() for b in sorted(blobs)] == sorted(texts)


def test_no_identifiers():
    assert pack_codes(torch.zeros(0, 4, dtype=torch.int64)) == []
    assert pack_codes(torch.zeros(2, 0, dtype=torch.int64)) == [b"C", b"C"]
    assert unpack([]).codes.shape == (0, 0)


def test_symbols_after_the_end_are_refused():
    with pytest.raises(AssertionError, match="after the end"):
        pack_codes(torch.tensor([[3, -1, 5]]))


@pytest.mark.parametrize(
    "blobs", [[b"C\x00"], [b"X\x00\x01"], [b"C\x00\x01", b"Ta"], [b"C\xff\xff\x00\x01"], [b"T\xff"], [b""]]
)
def test_damaged_blobs_are_named(blobs):
    with pytest.raises(GenretError, match="catalog"):
        unpack(blobs)


def test_vectors_keep_half_precision_in_little_endian():
    vectors = torch.tensor([[1.0, -0.3333333, 1e-3], [0.0, 65504.0, 2.0]])
    blobs = pack_vectors(vectors)
    assert blobs[0][:2] == b"\x00\x3c"  # 1.0 as IEEE half, low byte first
    assert unpack_vectors(blobs, 3).tolist() == vectors.half().float().tolist()
    with pytest.raises(GenretError, match="wrong length"):
        unpack_vectors(blobs, 4)
