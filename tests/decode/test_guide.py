"""Guided beam search against the definition: every identifier's score, by plain arithmetic."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genret.decode.beam import beam_search
from genret.decode.guide import Guide
from genret.decode.trie import Trie
from genret.interfaces import Additive

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
        return torch.stack([torch.stack([self.logits(q, p) for p in prefixes]) for q, prefixes in rows])[..., columns]


def world(seed: int, queries: int, count: int, extra: bool):
    """Targets, books, each level's tokens, and a catalog's codes; `extra`: a last level only tells images apart."""
    draw = torch.Generator().manual_seed(seed)
    books = [torch.randn(CODES, WIDTH, generator=draw) for _ in range(LEVELS)]
    depth = LEVELS + extra
    tokens = [torch.arange(FIRST + CODES * level, FIRST + CODES * (level + 1)) for level in range(depth)]
    codes = torch.randint(CODES, (count, depth), generator=draw).unique(dim=0)
    return Additive(torch.randn(queries, WIDTH, generator=draw), books), tokens, codes


def definition(model: MockModel, query: int, sums: Additive, tokens, code, weight: float) -> float:
    """log p − γ/2 ‖z − ẑ‖² of a prefix."""
    total, point = 0.0, torch.zeros(WIDTH)
    for level, symbol in enumerate(code.tolist()):
        logits = model.logits(query, tuple(int(tokens[d][c]) for d, c in enumerate(code[:level].tolist())))
        total += float(logits[tokens[level]].log_softmax(0)[symbol])
        if level < len(sums.books):
            point = point + sums.books[level][symbol]
    return total - weight / 2 * float((sums.target[query] - point).square().sum())


def spelt(tokens, codes):
    return torch.stack([tokens[d][codes[:, d]] for d in range(codes.shape[1])], dim=1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 40), st.booleans(), st.sampled_from([0.1, 1.0, 20.0]))
def test_equals_plain_beam_search(seed, count, num_beams, extra, weight):
    sums, tokens, codes = world(seed, 3, count, extra)
    trie, model = Trie.build(spelt(tokens, codes)), MockModel(FIRST + CODES * (LEVELS + 1))
    guide = Guide(sums, tokens, weight)
    found = beam_search(model, ["0", "1", "2"], trie, num_beams, "level", tokens, guide=guide)
    totals = guide.totals(spelt(tokens, codes)[None].expand(3, -1, -1))
    for query in range(3):
        beams = [()]
        for depth in range(1, codes.shape[1] + 1):
            longer = {tuple(row[:depth]) for row in codes.tolist() if tuple(row[: depth - 1]) in beams}
            score = {p: definition(model, query, sums, tokens, torch.tensor(p), weight) for p in longer}
            beams = sorted(longer, key=lambda p: (-score[p], p))[:num_beams]
        leaves = [leaf for leaf in found.leaves[query].tolist() if leaf >= 0]
        assert [tuple(row) for row in codes[leaves].tolist()] == beams  # leaves count through the sorted codes
        expected = torch.tensor([score[beam] for beam in beams])
        torch.testing.assert_close(found.scores[query, : len(beams)], expected, rtol=1e-4, atol=1e-3)
        own = sums.target[query] - sum(book[codes[:, d]] for d, book in enumerate(sums.books))
        torch.testing.assert_close(totals[query], -weight / 2 * own.square().sum(1), rtol=1e-4, atol=1e-4)


def test_a_strong_guide_alone_is_the_nearest_reconstruction():
    sums, tokens, codes = world(5, 4, 40, extra=False)
    trie, model = Trie.build(spelt(tokens, codes)), MockModel(FIRST + CODES * LEVELS)
    found = beam_search(model, list("0123"), trie, len(codes), "level", tokens, guide=Guide(sums, tokens, 1e4))
    points = sum(book[codes[:, d]] for d, book in enumerate(sums.books))
    assert torch.equal(found.leaves[:, 0], torch.cdist(sums.target, points).argmin(1))


def test_guidance_wants_the_levels_own_tokens():
    sums, tokens, codes = world(0, 1, 5, extra=False)
    trie, model = Trie.build(spelt(tokens, codes)), MockModel(FIRST + CODES * LEVELS)
    with pytest.raises(AssertionError, match="guidance is known for the tokens of a level"):
        beam_search(model, ["0"], trie, 3, "vocab", guide=Guide(sums, tokens, 1.0))
    with pytest.raises(AssertionError, match="other tokens than codes"):
        Guide(sums, [torch.cat([level, torch.tensor([99])]) for level in tokens], 1.0).totals(
            spelt(tokens, codes)[None]
        )
