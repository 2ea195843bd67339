"""The trie against Python sets and sorted lists of tuples."""

from pathlib import Path

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
    for d, level in enumerate(trie.levels):
        below = sorted({row[: d + 1] for row in leaves})  # those that have ended go on
        assert level.columns.tolist() == sorted({row[d] if len(row) > d else -1 for row in leaves})
        assert trie.has_ends[d] == any(len(row) <= d for row in leaves)
        assert trie.num_prefixes[d] == len(level.symbols) == len(below)
        counts = []
        for n, prefix in enumerate(nodes):
            children = range(int(level.offsets[n]), int(level.offsets[n + 1]))
            assert [below[c] for c in children] == [p for p in below if p[: len(nodes[n]) if d else 0] == prefix]
            counts.append(len(children))
        assert trie.max_children[d] == max(counts)
        low, high = trie.leaf_range(torch.arange(len(below), dtype=torch.int32), d + 1)
        for n, prefix in enumerate(below):
            assert int(level.columns[level.symbols[n].long()]) == (prefix[d] if len(prefix) > d else -1)
            under = [i for i, row in enumerate(leaves) if row[: d + 1] == prefix]
            assert list(range(int(low[n]), int(high[n]))) == under
        above = trie.prefixes_of(torch.arange(len(leaves)), d + 1).tolist()
        assert above == [below.index(row[: d + 1]) for row in leaves]
        wide = trie.wide(d)
        if wide is not None:
            for n in range(len(nodes)):
                children = wide[n][wide[n] >= 0].tolist()
                assert children == list(range(int(level.offsets[n]), int(level.offsets[n + 1])))
                assert (wide[n] >= 0).nonzero()[:, 0].tolist() == [int(level.symbols[c]) for c in children]
        nodes = below
    assert not trie.levels or trie.prefixes_of(torch.tensor([-1]), 1).tolist() == [-1]


def test_a_prefix_of_another_identifier_is_refused_by_name():
    with pytest.raises(GenretError, match=r"\[3, 1\] is the beginning of \[3, 1, 4\]"):
        Trie.build(padded([(2, 5), (3, 1, 4), (3, 1), (3, 2)]))
    with pytest.raises(GenretError, match="identifier 1 has no symbols"):
        Trie.build(padded([(2, 5), ()]))


def same(one, other):
    assert one.max_children == other.max_children
    assert one.num_prefixes == other.num_prefixes
    assert one.leaf_of_row.equal(other.leaf_of_row)
    assert one.depth == other.depth
    for mine, yours in zip(one.levels, other.levels, strict=True):
        for a, b in zip(mine, yours, strict=True):
            assert a.dtype == b.dtype
            assert a.equal(b)


@settings(max_examples=300, deadline=None)
@given(catalogs, st.lists(words, max_size=8), st.data())
def test_changed_tries_equal_tries_that_were_built_so(rows, more, data):
    before = Trie.build(padded(rows))
    nothing = torch.empty(0, 3, dtype=torch.int64)
    longer = before.extended(padded(more) if more else nothing)
    same(longer, Trie.build(padded(rows + more)))
    same(Trie.build(nothing).extended(padded(rows)), before)
    gone = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(rows + more), max_size=len(rows + more))))
    rest = [row for row, goes in zip(rows + more, gone.tolist(), strict=True) if not goes]
    expected = Trie.build(padded(rest) if rest else nothing)
    same(longer.without(gone), expected)
    same(longer.without(gone.nonzero()[:, 0]), expected)
    same(before, Trie.build(padded(rows)))


def test_changed_tries_of_large_catalogs():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 1000, (30_000, 4), generator=generator)
    rows[:, 3] += torch.arange(30_000) % 7 * 5000  # later rows bring new tokens, more than fit into int16
    trie = Trie.build(rows[:29_000].int())
    same(trie.extended(rows[29_000:]), Trie.build(rows))
    gone = torch.rand(30_000, generator=generator) < 0.1
    same(Trie.build(rows).without(gone), Trie.build(rows[~gone]))


def test_an_added_beginning_of_another_identifier_is_refused_by_name():
    trie = Trie.build(padded([(2, 5), (3, 1, 4)]))
    with pytest.raises(GenretError, match=r"\[3, 1\] is the beginning of \[3, 1, 4\]"):
        trie.extended(padded([(3, 1)]))
    with pytest.raises(GenretError, match=r"\[2, 5\] is the beginning of \[2, 5, 0, 7\]"):
        trie.extended(padded([(2, 5, 0, 7)]))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_rows_of_any_integer_type(dtype):
    rows = torch.randint(0, 100, (500, 3), generator=torch.Generator().manual_seed(0))
    same(Trie.build(rows.to(dtype)), Trie.build(rows))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux says what is mapped")
def test_a_loaded_trie_is_mapped_and_not_copied(tmp_path):
    Trie.build(torch.arange(4000).view(-1, 2)).save(tmp_path / "trie.safetensors")
    trie = Trie.load(tmp_path / "trie.safetensors")
    mapped = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(tmp_path / "trie.safetensors")):
            mapped.append([int(end, 16) for end in line.split()[0].split("-")])
    for tensor in (trie.leaf_of_row, *(t for level in trie.levels for t in level)):
        assert any(start <= tensor.data_ptr() < stop for start, stop in mapped)


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
    for depth in range(trie.depth):
        trie.wide(depth)  # what searches add
    assert trie.nbytes < 24 * len(rows)


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
    assert [path.name for path in tmp_path.iterdir()] == ["trie.safetensors"]
    same(again, trie)
    same(again.extended(padded([(5, END)])), Trie.build(torch.cat([rows, padded([(5, END)], 4)])))
    data = (tmp_path / "trie.safetensors").read_bytes()
    for name, content in {"cut": data[:-9], "empty": b"", "text": b"not a trie at all"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(GenretError, match="cannot read the trie"):
            Trie.load(tmp_path / name)
    with pytest.raises(GenretError, match="cannot read the trie"):
        Trie.load(tmp_path / "missing")
