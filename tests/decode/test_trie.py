"""The trie against Python sets and sorted lists of tuples."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genret.decode.trie import Trie
from genret.errors import GenretError

torch.set_num_threads(1)

END = 9
words = st.lists(st.integers(0, 4), min_size=0, max_size=4).map(lambda w: (*w, END))
catalogs = st.lists(words, min_size=1, max_size=25)


def padded(rows, depth=None):
    depth = depth or max(map(len, rows))
    return torch.tensor([[*row, *[-1] * (depth - len(row))] for row in rows])


@settings(max_examples=150, deadline=None)
@given(catalogs, st.integers(0, 2))
def test_leaves_are_the_sorted_set_of_rows(rows, extra_pads):
    trie = Trie.build(padded(rows, max(map(len, rows)) + extra_pads))
    expected = sorted(set(rows))
    assert trie.num_leaves == len(expected)
    assert trie.depth == max(map(len, rows))
    assert trie.leaf_of_row.tolist() == [expected.index(row) for row in rows]
    read = trie.tokens_of(torch.arange(trie.num_leaves)).tolist()
    assert [tuple(t for t in row if t >= 0) for row in read] == expected


@settings(max_examples=150, deadline=None)
@given(catalogs)
def test_every_level_lists_the_children_of_every_prefix(rows):
    trie = Trie.build(padded(rows))
    leaves = sorted(set(rows))
    nodes = [()]
    for d in range(trie.depth):
        level = trie.levels[d]
        tokens, symbols = trie.columns(d)
        assert tokens.tolist() == sorted({row[d] for row in leaves if len(row) > d})
        below = sorted({row[: d + 1] for row in leaves if len(row) > d})
        assert len(level.low) == len(below)
        counts = []
        for n, prefix in enumerate(nodes):
            children = range(int(level.offsets[n]), int(level.offsets[n + 1]))
            assert [below[c] for c in children] == [p for p in below if p[:-1] == prefix]
            counts.append(len(children))
        assert trie.max_children[d] == max(counts)
        for n, prefix in enumerate(below):
            assert int(tokens[symbols[n]]) == prefix[-1]
            under = [i for i, row in enumerate(leaves) if row[: d + 1] == prefix]
            assert list(range(int(level.low[n]), int(level.high[n]))) == under
        assert trie.num_prefixes[d] == len({row[: d + 1] for row in leaves})
        above = trie.prefixes_of(torch.arange(len(leaves)), d + 1).tolist()
        assert above == [below.index(r[: d + 1]) if len(r) > d else -2 - i for i, r in enumerate(leaves)]
        nodes = below
    assert trie.prefixes_of(torch.tensor([-1]), 1).tolist() == [-1]


def test_a_prefix_of_another_identifier_is_refused_by_name():
    with pytest.raises(GenretError, match=r"\[3, 1\] is the beginning of \[3, 1, 4\]"):
        Trie.build(padded([(2, 5), (3, 1, 4), (3, 1), (3, 2)]))
    with pytest.raises(GenretError, match="identifier 1 has no symbols"):
        Trie.build(padded([(2, 5), ()]))


def test_keys_wider_than_64_bits_are_sorted_in_parts():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 250_000, (500, 9), generator=generator)
    rows[250:, :8] = rows[:250, :8]  # only the last symbol differs
    assert 500.0**9 > 2**63
    trie = Trie.build(rows)
    expected = sorted(map(tuple, rows.tolist()))
    assert [tuple(row) for row in trie.tokens_of(torch.arange(trie.num_leaves)).tolist()] == expected
    assert trie.tokens_of(trie.leaf_of_row).equal(rows)


def test_large_tries_take_few_bytes():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 256, (50_000, 4), generator=generator)
    trie = Trie.build(rows)
    assert trie.tokens_of(trie.leaf_of_row).equal(rows)
    assert trie.nbytes < 80 * len(rows)


def test_an_empty_catalog_is_a_trie_without_leaves():
    trie = Trie.build(torch.empty(0, 4, dtype=torch.int64))
    assert (trie.num_leaves, trie.depth) == (0, 0)


def test_files(tmp_path):
    rows = padded([(1, END), (2, 3, END), (1, END), (2, 4, 0, END)])
    trie = Trie.build(rows)
    trie.save(tmp_path / "trie.safetensors")
    again = Trie.load(tmp_path / "trie.safetensors").to("cpu")
    assert again.tokens_of(again.leaf_of_row).equal(rows)
    assert again.max_children == trie.max_children
    assert again.num_prefixes == trie.num_prefixes
    data = (tmp_path / "trie.safetensors").read_bytes()
    for name, content in {"cut": data[:-9], "empty": b"", "text": b"not a trie at all"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(GenretError, match="cannot read the trie"):
            Trie.load(tmp_path / name)
    with pytest.raises(GenretError, match="cannot read the trie"):
        Trie.load(tmp_path / "missing")
