"""The beam search against enumeration of everything that a model of known probabilities could write."""

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genret.decode.beam import beam_search
from genret.decode.leaf_sets import LeafSets
from genret.decode.trie import Trie
from genret.errors import GenretError

torch.set_num_threads(1)

VOCAB = 7
END = 6


class MockModel:
    """Logits are a fixed function of the query and everything written before, as a language model's are."""

    def __init__(self):
        self.asked = []

    def logits(self, query, prefix):
        generator = torch.Generator().manual_seed(hash((query, *prefix)) % 2**31)
        return torch.randn(VOCAB, generator=generator) * 2

    def prefill(self, queries):
        return {"queries": [int(q) for q in queries], "prefixes": [[()] for _ in queries]}

    def step(self, state, symbols, parents, columns):
        self.asked.append(columns)
        if symbols is not None:
            state["prefixes"] = [
                [(*old[p], s) for s, p in zip(row, sources, strict=True)]
                for old, row, sources in zip(state["prefixes"], symbols.tolist(), parents.tolist(), strict=True)
            ]
        rows = zip(state["queries"], state["prefixes"], strict=True)
        logits = torch.stack([torch.stack([self.logits(q, p) for p in prefixes]) for q, prefixes in rows])
        return logits if columns is None else logits[..., columns]


def padded(rows):
    depth = max(map(len, rows))
    return torch.tensor([[*row, *[-1] * (depth - len(row))] for row in rows])


def log_probability(model, query, row, score, level_tokens, searched, written=None):
    """The definition, one symbol at a time, as far as the model writes."""
    total = 0.0
    for d, symbol in enumerate(row[:written]):
        logits = model.logits(query, row[:d])
        if score == "vocab" or (score == "level" and level_tokens[d] is None):
            rivals = range(VOCAB)
        elif score == "level":
            rivals = level_tokens[d].tolist()
        else:
            rivals = {other[d] for other in searched if other[:d] == row[:d]}
        total += float(logits[symbol] - logits[list(rivals)].logsumexp(0))
    return total


def reference_search(model, query, searched, num_beams, score, level_tokens, all_leaves, written):
    """Beam search in plain Python over tuples."""
    beams = [()]
    for d in range(max(map(len, all_leaves))):
        longer = {row[: d + 1] for row in searched if row[:d] in beams}
        scored = [(-log_probability(model, query, p, score, level_tokens, searched, written), p) for p in longer]
        beams = [prefix for _, prefix in sorted(scored)[:num_beams]]
    return beams


words = st.lists(st.integers(0, 3), min_size=0, max_size=3).map(lambda w: (*w, END))
catalogs = st.lists(words, min_size=1, max_size=20)
scores = st.sampled_from(["level", "vocab", "trie"])
LEVELS = [torch.tensor([0, 1, 2, 3, 4, 6]), None, torch.tensor([0, 1, 2, 3, 6]), torch.tensor([6])]


def made(rows, way):
    """A trie of these rows, by different ways."""
    tokens = padded(rows)
    half = len(rows) // 2
    if way == "extended":
        return Trie.build(tokens[:half]).extended(tokens[half:])
    if way == "without":
        more = torch.tensor([[a, b, END, -1] for a in range(4) for b in range(4)])
        wide = torch.nn.functional.pad(tokens, (0, 4 - tokens.shape[1]), value=-1)
        more = more[~(more[:, None] == wide).all(-1).any(1)]  # new ones, which go again
        return Trie.build(torch.cat([more, wide])).without(torch.arange(len(more)))
    if way == "loaded":
        with tempfile.TemporaryDirectory() as folder:
            Trie.build(tokens).save(Path(folder) / "trie")
            return Trie.load(Path(folder) / "trie")
    return Trie.build(tokens.to(torch.int8))


@settings(max_examples=300, deadline=None)
@given(catalogs, st.sampled_from(["built", "extended", "without", "loaded"]), scores, st.integers(1, 40), st.data())
def test_equals_enumeration_and_plain_beam_search(rows, way, score, num_beams, data):
    leaves = sorted(set(rows))
    trie = made(rows, way)
    queries = [str(q) for q in data.draw(st.lists(st.integers(0, 99), min_size=1, max_size=3))]
    restricted = data.draw(st.sampled_from(["no", "shared", "per query"]))
    shape = {"no": 0, "shared": 1, "per query": len(queries)}[restricted]
    mask = data.draw(st.lists(st.booleans(), min_size=shape * len(leaves), max_size=shape * len(leaves)))
    allowed = torch.tensor(mask).view(shape, len(leaves)) if shape else None
    sets = None if allowed is None else LeafSets.of(list(allowed.numpy()))
    model = MockModel()
    written = data.draw(st.sampled_from([None, 1, 2, 3, 9]))
    found = beam_search(model, queries, trie, num_beams, score, LEVELS, sets, written_levels=written)
    assert len(model.asked) == min(trie.depth, written or trie.depth)
    width = min(num_beams, len(leaves))
    assert found.leaves.shape == found.scores.shape == (len(queries), width)
    assert found.scores.dtype == torch.float32
    for q, query in enumerate(map(int, queries)):
        row_mask = [True] * len(leaves) if allowed is None else allowed[q % shape].tolist()
        searched = [leaf for leaf, ok in zip(leaves, row_mask, strict=True) if ok]
        exact = {leaf: log_probability(model, query, leaf, score, LEVELS, searched, written) for leaf in searched}
        got = [leaves[i] for i in found.leaves[q].tolist() if i >= 0]
        assert len(got) == len(set(got))
        assert set(got) <= set(searched)
        for leaf, value in zip(got, found.scores[q].tolist(), strict=False):
            assert value == pytest.approx(exact[leaf], abs=1e-4)
        assert found.leaves[q, len(got) :].eq(-1).all()
        assert found.scores[q, len(got) :].eq(-torch.inf).all()
        ranking = sorted(searched, key=lambda leaf: (-round(exact[leaf], 4), leaf))
        if num_beams >= len(leaves):
            assert sorted(got) == searched  # every identifier can be found
            assert [round(exact[leaf], 3) for leaf in got] == [round(exact[leaf], 3) for leaf in ranking]
        if searched:
            reference = reference_search(model, query, searched, num_beams, score, LEVELS, leaves, written)
            assert got == reference
        for d, kept in enumerate(found.prefixes):
            above = trie.prefixes_of(found.leaves[q], d + 1)
            assert set(above.tolist()) - {-1} <= set(kept.nodes[q].tolist())
            assert kept.nodes.shape[1] <= width
    assert found.prefixes[-1].scores.equal(found.scores)


class Hashing:
    """As `MockModel`, but fast: what was written before counts only through a small hash."""

    table = torch.randn(1009, VOCAB, generator=torch.Generator().manual_seed(0)) * 2

    def prefill(self, queries):
        return [torch.tensor([[int(q)] for q in queries])]

    def step(self, state, symbols, parents, columns):
        if symbols is not None:
            state[0] = self.after(state[0].gather(1, parents), symbols)
        logits = self.table[state[0]]
        return logits if columns is None else logits[..., columns]

    @staticmethod
    def after(seen, symbols):
        return (seen * 31 + symbols + 7) % 1009


@pytest.mark.parametrize("seed", range(8))
def test_thousands_of_searches_that_see_everything(seed):
    """Beams for all identifiers and more: those allowed, with their sums, in order. Eight queries in every search."""
    random = np.random.default_rng(seed)
    queries = [str(q) for q in range(8)]
    for _ in range(125):
        kind = random.integers(4)
        num_rows = 1 if kind == 0 else int(random.integers(2, 60))
        lengths = random.integers(3, 4, num_rows) if kind == 1 else random.integers(0, 4, num_rows)
        tokens = torch.from_numpy(random.integers(0, 2 if kind == 2 else 4, (num_rows, 3)))
        tokens[torch.arange(3) >= torch.from_numpy(lengths)[:, None]] = -1
        tokens = torch.nn.functional.pad(tokens, (0, 1), value=-1)
        tokens[torch.arange(num_rows), torch.from_numpy(lengths)] = END
        trie = Trie.build(tokens)
        masks = random.random((8, trie.num_leaves)) < random.choice([0.1, 0.5, 1.0])
        score = random.choice(["level", "vocab"])
        found = beam_search(
            Hashing(), queries, trie, trie.num_leaves + int(random.integers(3)), score, LEVELS, LeafSets.of(list(masks))
        )
        seen, sums = torch.arange(8)[:, None].expand(-1, trie.num_leaves), torch.zeros(8, trie.num_leaves)
        leaves = trie.tokens_of(torch.arange(trie.num_leaves))
        for d in range(leaves.shape[1]):
            logits = Hashing.table[seen]
            rivals = logits if score == "vocab" or LEVELS[d] is None else logits[..., LEVELS[d]]
            gains = logits.gather(-1, leaves[:, d].clamp_min(0).expand(8, -1)[..., None])[..., 0] - rivals.logsumexp(-1)
            sums += torch.where(leaves[:, d] < 0, 0.0, gains)
            seen = torch.where(leaves[:, d] < 0, seen, Hashing.after(seen, leaves[:, d]))
        sums = torch.where(torch.from_numpy(masks), sums, -torch.inf)
        torch.testing.assert_close(found.scores, sums.sort(descending=True).values, rtol=1e-4, atol=1e-4)
        there = found.leaves >= 0
        assert there.equal(found.scores > -torch.inf)
        torch.testing.assert_close(sums.gather(1, found.leaves.clamp_min(0))[there], found.scores[there])
        assert there.sum(1).tolist() == masks.sum(1).tolist()
        assert all(len(set(row[row >= 0].tolist())) == int((row >= 0).sum()) for row in found.leaves)


@settings(max_examples=40, deadline=None)
@given(catalogs, scores, st.integers(1, 5), st.data())
def test_a_restriction_equals_a_smaller_catalog(rows, score, num_beams, data):
    leaves = sorted(set(rows))
    keep = data.draw(st.lists(st.booleans(), min_size=len(leaves), max_size=len(leaves)).filter(any))
    part = [leaf for leaf, ok in zip(leaves, keep, strict=True) if ok]
    args = (num_beams, score, LEVELS)
    restricted = beam_search(MockModel(), ["3"], Trie.build(padded(rows)), *args, LeafSets.of([np.array(keep)]))
    smaller = beam_search(MockModel(), ["3"], Trie.build(padded(part)), *args)
    assert [leaves[i] for i in restricted.leaves[0].tolist() if i >= 0] == [part[i] for i in smaller.leaves[0].tolist()]
    torch.testing.assert_close(restricted.scores[:, : smaller.scores.shape[1]], smaller.scores)


class Uniform(MockModel):
    def logits(self, query, prefix):
        return torch.zeros(VOCAB)


@pytest.mark.parametrize("num_beams", [1, 2, 5, 16])
def test_equal_scores_are_ordered_by_leaf(num_beams):
    rows = [(a, b) for a in range(4) for b in range(4)]
    found = beam_search(Uniform(), ["0"], Trie.build(torch.tensor(rows)), num_beams, "vocab")
    assert found.leaves.tolist() == [list(range(num_beams))]
    assert found.scores[0].tolist() == pytest.approx([2 * math.log(1 / VOCAB)] * num_beams)


def test_only_the_needed_columns_are_asked():
    trie = Trie.build(torch.tensor([[0, 3], [0, 4], [2, 3]]))
    levels = [torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5])]
    asked = {}
    for score in ("level", "vocab", "trie"):
        model = MockModel()
        beam_search(model, ["0"], trie, 2, score, levels)
        asked[score] = [None if c is None else c.tolist() for c in model.asked]
    assert asked == {"level": [[0, 1, 2], [3, 4, 5]], "vocab": [None, None], "trie": [[0, 2], [3, 4]]}


def test_symbols_outside_their_level_are_refused():
    with pytest.raises(AssertionError, match=r"level_tokens\[1\] lacks"):
        beam_search(MockModel(), ["0"], Trie.build(torch.tensor([[0, END]])), 1, "level", [None, torch.tensor([0, 1])])


def test_nothing_to_find():
    empty = Trie.build(torch.empty(0, 2, dtype=torch.int64))
    assert beam_search(MockModel(), ["0", "1"], empty, 4, "vocab").leaves.shape == (2, 0)
    trie = Trie.build(torch.tensor([[0, 1], [2, 3]]))
    assert beam_search(MockModel(), [], trie, 4, "vocab").leaves.shape == (0, 2)
    nothing = beam_search(MockModel(), ["0"], trie, 4, "trie", allowed=LeafSets.of([np.zeros(2, dtype=bool)]))
    assert nothing.leaves.tolist() == [[-1, -1]]
    assert nothing.scores.tolist() == [[-torch.inf, -torch.inf]]


class Impossible(MockModel):
    """Gives symbol 1 no probability at all."""

    def logits(self, query, prefix):
        return super().logits(query, prefix).index_fill(0, torch.tensor([1]), -torch.inf)


@pytest.mark.parametrize("score", ["level", "vocab", "trie"])
def test_impossible_symbols_are_dropped(score):
    trie = Trie.build(torch.tensor([[0, 2], [0, 3], [1, 2], [2, 1]]))
    found = beam_search(Impossible(), ["0"], trie, 9, score, [None, torch.tensor([1, 2, 3])])
    assert sorted(found.leaves[0].tolist()) == [-1, -1, 0, 1]
    assert found.scores[0, 2:].tolist() == [-torch.inf, -torch.inf]


@pytest.mark.parametrize("value", [math.nan, -math.nan, math.inf])
@pytest.mark.parametrize("score", ["vocab", "trie"])
@pytest.mark.parametrize("depth", [0, 1])
def test_broken_models_are_reported(value, score, depth):
    class Broken(MockModel):
        def logits(self, query, prefix):
            logits = super().logits(query, prefix)
            logits[2] = value if len(prefix) == depth else logits[2]
            return logits

    with pytest.raises(GenretError, match="not finite"):
        beam_search(Broken(), ["0"], Trie.build(torch.tensor([[0, 2], [2, 2], [3, 2]])), 3, score)
