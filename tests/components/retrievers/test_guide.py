"""Guided beam search against the definition, by plain arithmetic, and against guidance with nothing left out."""

from __future__ import annotations

import faiss
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from genret.api import Additive
from genret.components.retrievers.guidance import means, points_cache
from genret.components.retrievers.guidance.guide import FEW, FlatGuide
from genret.components.retrievers.guidance.means import Points, Several
from genret.decode.beam import beam_search
from genret.decode.leaf_sets import LeafSets
from genret.decode.trie import Trie
from tests.components.retrievers.exhaustive import AllPoints, ExhaustiveGuide

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


def flat(sums, tokens, codes, weight, allowed=None):
    trie = Trie.build(spelt(tokens, codes))
    return trie, FlatGuide(sums.target, Points(trie, sums.books, tokens), weight, allowed)


def exhaustive(sums, tokens, codes, weight, allowed=None):
    trie = Trie.build(spelt(tokens, codes))
    return trie, ExhaustiveGuide(sums, AllPoints.of(trie, sums.books, tokens), trie, weight, allowed)


def worth(sums: Additive, codes: torch.Tensor, prefix, query: int, weight: float, keep=None) -> float:
    """What a prefix's guidance is defined as."""
    points = sum(book[codes[:, d]] for d, book in enumerate(sums.books))
    below = (codes[:, : len(prefix)] == torch.tensor(prefix)).all(1)
    there = below if keep is None else below & keep
    if below.sum() > 1 and (keep is None or there.sum() > FEW):
        there, points = torch.tensor([True]), points[below].mean(0, keepdim=True)
    return float((-weight / 2 * (points[there] - sums.target[query]).square().sum(1)).max())


def plain_search(model, sums, tokens, codes, weight, num_beams, query, score="level", written=None, keep=None):
    """Per depth: the beams (codes) and their scores, best first."""
    rows = [tuple(row) for row in (codes if keep is None else codes[keep]).tolist()]
    beams, found = [()], []
    for depth in range(1, codes.shape[1] + 1):
        below = {row[:depth] for row in rows if row[: depth - 1] in beams}
        value = {
            p: log_prob(model, query, tokens, p, score, written) + worth(sums, codes, p, query, weight, keep)
            for p in below
        }
        beams = sorted(value, key=lambda p: (-value[p], p))[:num_beams]
        found.append((beams, [value[beam] for beam in beams]))
    return found


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 30),
    st.integers(1, 40),
    st.booleans(),
    st.sampled_from([0.1, 1.0, 20.0]),
    st.sampled_from(["level", "vocab"]),
    st.sampled_from([None, 1, 2]),
    st.booleans(),
)
def test_equals_plain_beam_search(seed, count, num_beams, extra, weight, score, written, restricted):
    """By the mean of several identifiers below a prefix, by the point of one, by the nearest of a few allowed ones."""
    sums, tokens, codes = world(seed, 2, count, extra)
    keep = torch.rand(len(codes), generator=torch.Generator().manual_seed(seed)) < 0.6 if restricted else None
    if keep is not None:
        keep[seed % len(codes)] = True
    allowed = None if keep is None else LeafSets.of([keep.numpy()])
    trie, guide = flat(sums, tokens, codes, weight, allowed)
    model = MockModel(FIRST + CODES * (LEVELS + 1))
    found = beam_search(model, ["0", "1"], trie, num_beams, score, tokens, allowed, guide, written)
    rows = [tuple(row) for row in codes.tolist()]
    for query in range(2):
        plain = plain_search(model, sums, tokens, codes, weight, num_beams, query, score, written, keep)
        for depth, (beams, values) in enumerate(plain):
            torch.testing.assert_close(
                found.prefixes[depth].scores[query, : len(beams)], torch.tensor(values), rtol=1e-4, atol=1e-3
            )
        leaves = [leaf for leaf in found.leaves[query].tolist() if leaf >= 0]
        assert [rows[leaf] for leaf in leaves] == plain[-1][0]  # leaves count through the sorted codes
    every = torch.arange(len(codes)).expand(2, -1)
    torch.testing.assert_close(guide.of_leaves(every), drawn(sums, codes, weight), rtol=1e-4, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, CODES), st.integers(1, 6))
def test_equals_exhaustive_guidance_where_every_node_has_one_leaf(seed, count, num_beams):
    sums, tokens, codes = world(seed, 2, 40, extra=True)
    codes = codes[[int((codes[:, 0] == first).nonzero()[0, 0]) for first in codes[:, 0].unique()]][:count]
    model = MockModel(FIRST + CODES * (LEVELS + 1))
    found, expected = (
        beam_search(model, ["0", "1"], trie, num_beams, "level", tokens, guide=guide)
        for trie, guide in (flat(sums, tokens, codes, 5.0), exhaustive(sums, tokens, codes, 5.0))
    )
    assert torch.equal(found.leaves, expected.leaves)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(1, 6))
def test_restricted_to_a_few_is_searching_a_trie_of_these_alone(seed, count, num_beams):
    """Two queries, each with its own few images."""
    sums, tokens, codes = world(seed, 2, count, extra=True)
    model, draw = MockModel(FIRST + CODES * (LEVELS + 1)), torch.Generator().manual_seed(seed)
    keep = torch.zeros(2, len(codes), dtype=torch.bool)
    for own in keep:
        own[torch.randperm(len(codes), generator=draw)[:FEW]] = True
    allowed = LeafSets.of([own.numpy() for own in keep])
    trie, guide = flat(sums, tokens, codes, 5.0, allowed)
    found = beam_search(model, ["0", "1"], trie, num_beams, "level", tokens, allowed, guide)
    for query, own in enumerate(keep):
        alone = sums._replace(target=sums.target[query : query + 1])
        part, oracle = exhaustive(alone, tokens, codes[own], 5.0)
        expected = beam_search(model, [str(query)], part, num_beams, "level", tokens, guide=oracle)
        place = torch.cat([own.nonzero()[:, 0], torch.tensor([-1])])
        there = expected.leaves.shape[1]
        assert torch.equal(found.leaves[query, :there], place[expected.leaves[0]])
        torch.testing.assert_close(found.scores[query, :there], expected.scores[0], rtol=1e-4, atol=1e-4)
        assert (found.leaves[query, there:] == -1).all()


class Mute:
    """A language model to which all codes are alike."""

    def prefill(self, queries):
        return len(queries)

    def step(self, state, symbols, parents, columns):
        return torch.zeros(state, 1 if symbols is None else symbols.shape[1], len(columns))


@pytest.mark.parametrize(("vectors", "bound"), [(10_000, 0.97), (0, 0.93)], ids=["means", "coded means"])
def test_what_is_lost_on_skewed_codes(monkeypatch, vectors, bound):
    """Share of queries whose nearest identifier, as the exhaustive search finds it, is still first. Clustered points,
    coded by residual k-means as images are; a twentieth of the nodes of two codes hold half of the leaves."""
    monkeypatch.setattr(means, "VECTORS", vectors)
    monkeypatch.setattr(means, "STAGES", 2)  # hundreds of means, where a large catalog has a million for eight
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(300, 32, generator=draw)
    owner = (torch.rand(4000, generator=draw) ** 3 * 300).long()
    points = centres[owner] + 0.7 * torch.randn(4000, 32, generator=draw)
    books, codes, rest = [], [], points
    for _ in range(6):
        book = rest[torch.randperm(4000, generator=draw)[:32]] / 2
        for _ in range(8):
            own = torch.cdist(rest, book).argmin(1)
            book = torch.stack([rest[own == k].mean(0) if (own == k).any() else book[k] for k in range(32)])
        own = torch.cdist(rest, book).argmin(1)
        books, codes, rest = [*books, book], [*codes, own], rest - book[own]
    codes = torch.stack(codes, 1).unique(dim=0)
    tokens = [torch.arange(32 * d, 32 * d + 32) for d in range(6)]
    target = points[torch.randperm(4000, generator=draw)[:300]] + 0.7 * torch.randn(300, 32, generator=draw)
    sums = Additive(target, books)
    trie, guide = flat(sums, tokens, codes, 100.0)
    several = [
        int((torch.stack(trie.leaf_range(torch.arange(n), d + 1)).diff(dim=0) > 1).sum())
        for d, n in enumerate(trie.num_prefixes)
    ]
    assert several[0] == 32 and several[1] > 300 and several[2] > 200, "there is something to lose"
    _, oracle = exhaustive(sums, tokens, codes, 100.0)
    first, exact = (
        beam_search(Mute(), [""] * 300, trie, 20, "level", tokens, guide=one).leaves[:, 0] for one in (guide, oracle)
    )
    kept = float((first == exact).float().mean())
    print(several, kept)
    assert kept >= bound


@pytest.mark.parametrize("vectors", [10_000, 0], ids=["means", "coded means"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.integers(2, 60), st.booleans())
def test_tables_follow_additions_and_removals(monkeypatch, vectors, seed, count, extra):
    """As if made anew; of coded means, by the books that are there."""
    monkeypatch.setattr(means, "VECTORS", vectors)
    sums, tokens, codes = world(seed, 1, count, extra)
    draw = torch.Generator().manual_seed(seed)
    before = codes[torch.rand(len(codes), generator=draw) < 0.8]
    after = codes[torch.rand(len(codes), generator=draw) < 0.8]
    before, after = (some if len(some) else codes[:1] for some in (before, after))
    old = Points(Trie.build(spelt(tokens, before)), sums.books, tokens)
    trie = Trie.build(spelt(tokens, after))
    found, anew = Points(trie, sums.books, tokens, old), Points(trie, sums.books, tokens)
    torch.testing.assert_close(found.half_squares, anew.half_squares)
    for depth, (one, other) in enumerate(zip(found.means, anew.means, strict=True), 1):
        assert (one is None) == (other is None)
        if one is None:
            continue
        assert all(torch.equal(a, b) for a, b in zip(one.several, other.several, strict=True) if b is not None)
        if one.codes is None:
            torch.testing.assert_close(one.vectors, other.vectors)
            torch.testing.assert_close(one.half_squares, other.half_squares)
            continue
        points, inner = sum(book[after[:, d]] for d, book in enumerate(sums.books)), trie.num_prefixes[depth - 1]
        low, high = trie.leaf_range(torch.arange(inner), depth)
        groups = [(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True) if b - a > 1]
        prefix = torch.stack([sum(book[after[a, d]] for d, book in enumerate(sums.books[:depth])) for a, _ in groups])
        rest = torch.stack([points[a:b].mean(0) for a, b in groups]) - prefix
        for stage, book in enumerate(one.vectors):  # of codes equally near, either one
            distances, own = torch.cdist(rest, book).square(), one.codes[:, stage].long()
            torch.testing.assert_close(distances.gather(1, own[:, None])[:, 0], distances.amin(1), atol=1e-4, rtol=0)
            rest = rest - book[own]
        torch.testing.assert_close(
            one.half_squares, 0.5 * (prefix + means.decode(one.codes, one.vectors)).square().sum(1)
        )


@pytest.mark.parametrize("vectors", [10_000, 0], ids=["means", "coded means"])
def test_tables_on_disk(monkeypatch, tmp_path, vectors):
    monkeypatch.setattr(means, "VECTORS", vectors)
    monkeypatch.setattr(points_cache, "LEAST_CACHED", 10)
    sums, tokens, codes = world(0, 1, 60, extra=True)
    tries = [Trie.build(spelt(tokens, codes[first:])) for first in range(4)]

    def opened(trie):
        return points_cache.points_of(tmp_path / "trie", trie, sums.books, tokens)

    made = opened(tries[0])
    assert made.means[0] is not None and (made.means[0].codes is None) == (vectors > 0)
    with monkeypatch.context() as patch:
        patch.setattr(Points, "_averaged", None)  # nothing is made anew
        read = opened(tries[0])
    assert read.tables().keys() == made.tables().keys()
    assert all(torch.equal(table, made.tables()[name]) for name, table in read.tables().items())
    (file,) = (tmp_path / "trie").iterdir()
    file.write_bytes(b"damaged")
    assert torch.equal(opened(tries[0]).half_squares, made.half_squares)
    for trie in tries:
        assert torch.equal(opened(trie).half_squares, Points(trie, sums.books, tokens).half_squares)
    assert len(list((tmp_path / "trie").iterdir())) == points_cache.KEPT
    other = points_cache.points_of(tmp_path / "trie", tries[3], [2 * book for book in sums.books], tokens)
    torch.testing.assert_close(other.half_squares, 4 * opened(tries[3]).half_squares)  # other books, other tables
    (tmp_path / "file").write_text("")
    assert points_cache.points_of(tmp_path / "file", tries[0], sums.books, tokens).means  # no folder can be made


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 200), st.sampled_from([0.02, 0.1, 0.5, 1.0]))
def test_rows_of_nodes_with_several_leaves(seed, count, share):
    several = torch.rand(count, generator=torch.Generator().manual_seed(seed)) < share
    several[seed % count] = True
    table = Several.of(several)
    rows, there = table.rows(torch.arange(count, dtype=torch.int32))
    assert torch.equal(there, several)
    assert rows[several].tolist() == list(range(int(several.sum())))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 10))
def test_a_strong_exhaustive_guide_finds_the_nearest_points_with_any_beams(seed, count, num_beams):
    """As FAISS finds them: no beam that leads to one of the b nearest is ever given up."""
    sums, tokens, codes = world(seed, 4, count, extra=False)
    points = sum(book[codes[:, d]] for d, book in enumerate(sums.books))
    index = faiss.IndexFlatL2(WIDTH)
    index.add(points.numpy())
    distances, nearest = index.search(sums.target.numpy(), min(num_beams, len(codes)))
    assume((torch.from_numpy(distances).diff() > 1e-2).all())  # what the language model adds decides nothing, then
    trie, guide = exhaustive(sums, tokens, codes, 1e5)
    found = beam_search(MockModel(FIRST + CODES * LEVELS), list("0123"), trie, num_beams, "level", tokens, guide=guide)
    assert torch.equal(found.leaves, torch.from_numpy(nearest))


def test_levels_without_vectors_and_tokens_that_are_not_the_codes():
    sums, tokens, codes = world(0, 1, 5, extra=False)
    trie = Trie.build(spelt(tokens, codes))
    with pytest.raises(AssertionError, match="other tokens than codes"):
        Points(trie, sums.books, [torch.cat([level, torch.tensor([99])]) for level in tokens])
