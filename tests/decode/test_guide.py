"""Guided beam search against the definition: every identifier's score, by plain arithmetic."""

from __future__ import annotations

import faiss
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from genret.api import Additive
from genret.decode.beam import beam_search
from genret.decode.guide import Guide, Points
from genret.decode.leaf_sets import LeafSets
from genret.decode.trie import Trie

LEVELS, CODES, WIDTH = 3, 4, 5
FIRST = 2  # the vocabulary has other tokens in front


class MockModel:
    """Logits are a fixed function of the query and everything written before."""

    def __init__(self, vocab: int):
        self.vocab = vocab

    def logits(self, query: int, prefix: tuple[int, ...]) -> torch.Tensor:
        draw = torch.Generator().manual_seed(hash((query, *prefix)) % 2**31)
        return torch.randn(self.vocab, generator=draw) * 2

    def prefill(self, queries):
        return {"queries": [int(query) for query in queries], "prefixes": [[()] for _ in queries]}

    def step(self, state, symbols, parents, columns):
        if symbols is not None:
            rows = zip(state["prefixes"], symbols.tolist(), parents.tolist(), strict=True)
            state["prefixes"] = [[(*old[p], s) for s, p in zip(new, of, strict=True)] for old, new, of in rows]
        rows = zip(state["queries"], state["prefixes"], strict=True)
        logits = torch.stack([torch.stack([self.logits(q, p) for p in prefixes]) for q, prefixes in rows])
        return logits if columns is None else logits[..., columns]


def world(seed: int, queries: int, count: int, extra: bool):
    """Targets, books, each level's tokens, and a catalog's codes; `extra`: a last level only tells images apart."""
    draw = torch.Generator().manual_seed(seed)
    books = [torch.randn(CODES, WIDTH, generator=draw) for _ in range(LEVELS)]
    depth = LEVELS + extra
    tokens = [torch.arange(FIRST + CODES * level, FIRST + CODES * (level + 1)) for level in range(depth)]
    codes = torch.randint(CODES, (count, depth), generator=draw).unique(dim=0)
    return Additive(torch.randn(queries, WIDTH, generator=draw), books), tokens, codes


def log_prob(model: MockModel, query: int, tokens, code, score: str = "level", written: int | None = None) -> float:
    """log p of a prefix, given as codes; of its `written` first ones."""
    total = 0.0
    for level, symbol in enumerate(code[:written]):
        logits = model.logits(query, tuple(int(tokens[d][c]) for d, c in enumerate(code[:level])))
        of = tokens[level] if score == "level" else torch.arange(len(logits))
        total += float(logits[tokens[level][symbol]] - logits[of].logsumexp(0))
    return total


def drawn(sums: Additive, codes: torch.Tensor, weight: float) -> torch.Tensor:
    """−γ/2 ‖z − ẑ‖² of whole identifiers (U, L) → (Q, U)."""
    points = sum(book[codes[:, d]] for d, book in enumerate(sums.books))
    return -weight / 2 * torch.cdist(sums.target, points).square()


def spelt(tokens, codes):
    return torch.stack([tokens[d][codes[:, d]] for d in range(codes.shape[1])], dim=1)


def guided(sums, tokens, codes, weight, allowed=None):
    trie = Trie.build(spelt(tokens, codes))
    return trie, Guide(sums, Points.of(trie, sums.books, tokens), trie, weight, allowed)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 30),
    st.integers(1, 40),
    st.booleans(),
    st.sampled_from([0.1, 1.0, 20.0]),
    st.sampled_from(["level", "vocab"]),
    st.sampled_from([None, 1, 2]),
)
def test_equals_plain_beam_search(seed, count, num_beams, extra, weight, score, written):
    sums, tokens, codes = world(seed, 3, count, extra)
    trie, guide = guided(sums, tokens, codes, weight)
    model = MockModel(FIRST + CODES * (LEVELS + 1))
    found = beam_search(model, ["0", "1", "2"], trie, num_beams, score, tokens, guide=guide, written_levels=written)
    near = drawn(sums, codes, weight)
    rows = [tuple(row) for row in codes.tolist()]
    for query in range(3):
        beams = [()]
        for depth in range(1, codes.shape[1] + 1):
            below: dict = {}
            for leaf, row in enumerate(rows):
                if row[: depth - 1] in beams:
                    below.setdefault(row[:depth], []).append(float(near[query, leaf]))
            value = {p: log_prob(model, query, tokens, p, score, written) + max(below[p]) for p in below}
            beams = sorted(value, key=lambda p: (-value[p], p))[:num_beams]
            expected = torch.tensor([value[beam] for beam in beams])
            torch.testing.assert_close(
                found.prefixes[depth - 1].scores[query, : len(beams)], expected, rtol=1e-4, atol=1e-3
            )
        leaves = [leaf for leaf in found.leaves[query].tolist() if leaf >= 0]
        assert [rows[leaf] for leaf in leaves] == beams  # leaves count through the sorted codes
    every = torch.arange(len(codes)).expand(3, -1)
    torch.testing.assert_close(guide.of(every, trie.depth), near, rtol=1e-4, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(1, 6))
def test_restricted_is_searching_a_trie_of_these_alone(seed, count, num_beams):
    sums, tokens, codes = world(seed, 2, count, extra=True)
    keep = torch.rand(len(codes), generator=torch.Generator().manual_seed(seed)) < 0.5
    keep[seed % len(codes)] = True
    allowed = LeafSets.of([keep.numpy()])
    model, queries = MockModel(FIRST + CODES * (LEVELS + 1)), ["0", "1"]
    trie, guide = guided(sums, tokens, codes, 5.0, allowed)
    found = beam_search(model, queries, trie, num_beams, "level", tokens, allowed, guide)
    part, alone = guided(sums, tokens, codes[keep], 5.0)
    expected = beam_search(model, queries, part, num_beams, "level", tokens, guide=alone)
    place = torch.cat([keep.nonzero()[:, 0], torch.tensor([-1])])
    there = expected.leaves.shape[1]
    assert torch.equal(found.leaves[:, :there], place[expected.leaves])
    torch.testing.assert_close(found.scores[:, :there], expected.scores)
    assert (found.leaves[:, there:] == -1).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 10))
def test_a_strong_guide_alone_finds_the_nearest_points_with_any_beams(seed, count, num_beams):
    """As FAISS finds them: no beam that leads to one of the b nearest is ever given up."""
    sums, tokens, codes = world(seed, 4, count, extra=False)
    points = sum(book[codes[:, d]] for d, book in enumerate(sums.books))
    index = faiss.IndexFlatL2(WIDTH)
    index.add(points.numpy())
    distances, nearest = index.search(sums.target.numpy(), min(num_beams, len(codes)))
    assume((torch.from_numpy(distances).diff() > 1e-2).all())  # what the language model adds decides nothing, then
    trie, guide = guided(sums, tokens, codes, 1e5)
    found = beam_search(MockModel(FIRST + CODES * LEVELS), list("0123"), trie, num_beams, "level", tokens, guide=guide)
    assert torch.equal(found.leaves, torch.from_numpy(nearest))


def test_levels_without_vectors_and_tokens_that_are_not_the_codes():
    sums, tokens, codes = world(0, 1, 5, extra=False)
    trie = Trie.build(spelt(tokens, codes))
    with pytest.raises(AssertionError, match="other tokens than codes"):
        Points.of(trie, sums.books, [torch.cat([level, torch.tensor([99])]) for level in tokens])
