"""Collisions against brute force over all codes, and what has to hold whatever comes."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from genret.api import Corpus
from genret.errors import GenretError
from genret.toolbox.codes.collisions import (
    CollisionOptions,
    Collisions,
    Distances,
    balanced,
    extra_symbols,
    nearest_free,
)

torch.set_num_threads(1)
SIZES = (3, 4)
EVERY = torch.tensor(list(itertools.product(*map(range, SIZES))))
NOTHING = torch.zeros(0, 2, dtype=torch.int64)


class World:
    """Points of the plane, and the 12 codes as points of a grid."""

    def __init__(self, points):
        self.points = torch.as_tensor(points, dtype=torch.float64).view(-1, 2)
        self.all = torch.cdist(self.points, EVERY.double())

    @property
    def codes(self):
        return EVERY[self.all.argmin(1)]

    @property
    def distances(self):
        def nearest(rows, count):
            return EVERY[self.all[rows].argsort(dim=1, stable=True)[:, :count]]

        def last_level(rows, codes):
            return self.all[rows].view(-1, *SIZES)[torch.arange(len(rows)), codes[:, 0]]

        return Distances(nearest, last_level)


def as_set(codes):
    return set(map(tuple, codes.tolist()))


coordinates = st.tuples(st.floats(-1, 3), st.floats(-1, 4))
worlds = st.lists(coordinates, min_size=1, max_size=12).map(World)


@pytest.mark.parametrize("strategy", [nearest_free, balanced])
@settings(max_examples=60, deadline=None)
@given(world=worlds, data=st.data())
def test_codes_are_unique_and_unique_ones_stay(strategy, world, data):
    count = data.draw(st.integers(0, 12 - len(world.points)))
    taken = EVERY[torch.tensor(data.draw(st.permutations(range(12)))[:count], dtype=torch.int64)]
    rows = torch.arange(len(world.points))
    settled = strategy(rows, world.codes, taken, world.distances, SIZES)
    assert len(as_set(settled)) == len(settled) and not as_set(settled) & as_set(taken)
    wanted = [tuple(code) for code in world.codes.tolist()]
    for row, code in enumerate(wanted):
        if wanted.count(code) == 1 and code not in as_set(taken):
            assert tuple(settled[row].tolist()) == code
    assert settled.equal(strategy(rows, world.codes, taken, world.distances, SIZES))


@settings(max_examples=40, deadline=None)
@given(world=worlds)
def test_nearest_free_is_what_a_queue_at_a_counter_gets(world):
    """First all who get their own code, then one after the other the nearest of what is left."""
    settled = nearest_free(torch.arange(len(world.points)), world.codes, NOTHING, world.distances, SIZES)
    left, expected = {tuple(code) for code in EVERY.tolist()}, {}
    for row, code in enumerate(map(tuple, world.codes.tolist())):
        if code in left:
            expected[row] = code
            left.remove(code)
    for row in range(len(world.points)):
        if row not in expected:
            code = min(left, key=lambda c: (float(world.all[row, c[0] * 4 + c[1]]), c))
            expected[row] = code
            left.remove(code)
    assert [tuple(code) for code in settled.tolist()] == [expected[row] for row in range(len(world.points))]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-0.4, 3.4), min_size=2, max_size=4))
def test_balanced_loses_least_within_a_prefix(last):
    """All compete for one code: no other way to share out the last level is cheaper."""
    world = World([(0.0, value) for value in last])
    codes = torch.tensor([[0, 1]] * len(last))
    settled = balanced(torch.arange(len(last)), codes, NOTHING, world.distances, SIZES)
    assert (settled[:, 0] == 0).all()
    costs = world.all[:, :4]
    cheapest = min(
        sum(float(costs[r, c]) for r, c in enumerate(p)) for p in itertools.permutations(range(4), len(last))
    )
    assert sum(float(costs[r, c]) for r, c in enumerate(settled[:, 1].tolist())) == pytest.approx(cheapest)


def test_a_full_prefix_spills_over():
    world = World([(0.0, 1.0)] * 6)
    settled = balanced(torch.arange(6), world.codes, NOTHING, world.distances, SIZES)
    assert len(as_set(settled)) == 6 and int((settled[:, 0] == 0).sum()) == 4


@pytest.mark.parametrize("how", ["nearest-free", "balanced"])
def test_no_code_is_left(how):
    world = World([(0.0, 1.0)] * 13)
    with pytest.raises(GenretError, match="all 12 codes of this identifier scheme are taken"):
        make(how).fit([str(i) for i in range(13)], world.codes, world.distances)


def test_extra_symbols_count_and_fill_gaps():
    codes = torch.tensor([[0, 1], [0, 1], [2, 2], [0, 1]])
    assert extra_symbols(codes, torch.zeros(0, 3, dtype=torch.int64), 8).tolist() == [0, 1, 0, 2]
    taken = torch.tensor([[0, 1, 0], [0, 1, 2], [2, 2, 1]])
    assert extra_symbols(codes, taken, 8).tolist() == [1, 3, 0, 4]
    with pytest.raises(GenretError, match="more than 2 images share the codes c0_0 c1_1"):
        extra_symbols(codes, torch.zeros(0, 3, dtype=torch.int64), 2)


# ------------------------------------------------------------------------------------------------ the assignment
def match(costs: torch.Tensor) -> torch.Tensor:
    """costs (n, m), inf in columns that are taken → (n,) the column that `balanced` gives each row, if all rows compete
    for one prefix; -1 for those that it sends to other prefixes."""
    n, m = costs.shape
    closed = [[0, column] for column in range(m) if costs[:, column].isinf().any()]
    wanted = int(costs.argmin()) if n == 1 else 0  # a single row competes only where its code is taken
    every = torch.tensor(list(itertools.product(range(n + 1), range(m))))
    distances = Distances(lambda rows, count: every.expand(len(rows), -1, -1), lambda rows, codes: costs[rows])
    taken = torch.tensor(closed, dtype=torch.int64).view(-1, 2)
    settled = balanced(torch.arange(n), torch.tensor([[0, wanted]] * n).view(-1, 2), taken, distances, (n + 1, m))
    return torch.where(settled[:, 0] == 0, settled[:, 1], -1)


def total(costs, columns):
    return float(sum(costs[row, column] for row, column in enumerate(columns.tolist()) if column >= 0))


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.data())
def test_no_permutation_is_cheaper(n, m, data):
    costs = torch.tensor(data.draw(st.lists(st.integers(-5, 5), min_size=n * m, max_size=n * m))).view(n, m).double()
    closed = data.draw(st.sets(st.integers(0, m - 1)))
    costs[:, sorted(closed)] = torch.inf
    columns = match(costs)
    chosen = [column for column in columns.tolist() if column >= 0]
    left = sorted(set(range(m)) - closed)
    assert len(set(chosen)) == len(chosen) == min(n, len(left)) and not closed & set(chosen)
    if len(left) >= n:
        cheapest = min(sum(float(costs[r, c]) for r, c in enumerate(p)) for p in itertools.permutations(left, n))
    else:
        cheapest = min(
            sum(float(costs[r, c]) for r, c in zip(p, left, strict=True))
            for p in itertools.permutations(range(n), len(left))
        )
    assert total(costs, columns) == pytest.approx(cheapest)


@pytest.mark.parametrize(("n", "m"), [(60, 60), (40, 100), (100, 40)])
def test_equals_scipy(n, m):
    costs = torch.rand(n, m, generator=torch.Generator().manual_seed(0))
    rows, columns = linear_sum_assignment(costs.numpy())
    assert total(costs, match(costs)) == pytest.approx(float(costs[rows, columns].sum()), rel=1e-5)


def test_no_columns_and_no_rows():
    assert match(torch.full((2, 3), torch.inf)).tolist() == [-1, -1]
    assert match(torch.zeros(0, 3)).tolist() == []


# ------------------------------------------------------------------------------------------------ with memory
def make(how, **options):
    return Collisions(CollisionOptions(collisions=how, **options), SIZES)


def corpus(ids, taken=None):
    return Corpus([str(i) for i in ids], torch.zeros(len(ids), 2), taken=taken)


@pytest.mark.parametrize("how", ["extra-symbol", "nearest-free", "balanced"])
@settings(max_examples=40, deadline=None)
@given(points=st.lists(coordinates, min_size=2, max_size=12), data=st.data())
def test_images_of_the_fit_keep_theirs_and_new_ones_stay_clear(how, points, data):
    split = data.draw(st.integers(1, len(points) - 1))
    old, new = World(points[:split]), World(points[split:])
    scheme = make(how)
    scheme.fit([str(i) for i in range(split)], old.codes, old.distances)
    fitted = scheme.settle(corpus(range(split)), old.codes, old.distances)
    assert len(as_set(fitted)) == split
    assert fitted.shape[1] == len(scheme.vokens.sizes) == (3 if how == "extra-symbol" else 2)
    assert all(bool((fitted[:, m] < size).all()) for m, size in enumerate(scheme.vokens.sizes))

    # in another order, seen differently, beside new ones: they keep theirs
    mixed = World(points[split:] + points[:1] * split)
    ids = [*range(split, len(points)), *reversed(range(split))]
    settled = scheme.settle(corpus(ids), mixed.codes, mixed.distances)
    assert settled[len(points) - split :].flip(0).equal(fitted)
    assert len(as_set(settled)) == len(points)

    added = scheme.settle(corpus(range(split, len(points)), fitted), new.codes, new.distances)
    assert not as_set(added) & as_set(fitted) and len(as_set(added)) == len(new.points)

    again = make(how)
    tensors, facts = scheme.state()
    again.restore(tensors | {"other": NOTHING}, facts)
    assert again.vokens == scheme.vokens
    assert again.settle(corpus(ids), mixed.codes, mixed.distances).equal(settled)


def test_an_image_of_the_fit_whose_identifier_is_taken_gets_another():
    world = World([(0.0, 1.0), (2.0, 3.0)])
    scheme = make("nearest-free")
    scheme.fit(["a", "b"], world.codes, world.distances)
    settled = scheme.settle(Corpus(["a", "b"], world.points, taken=world.codes[:1]), world.codes, world.distances)
    assert settled[1].equal(world.codes[1]) and tuple(settled[0].tolist()) not in as_set(world.codes)


def test_keeping_collisions_remembers_nothing():
    world = World([(0.0, 1.0)] * 3)
    scheme = make("keep")
    scheme.fit(["a", "b", "c"], world.codes, world.distances)
    assert scheme.settle(corpus("abc"), world.codes, world.distances).equal(world.codes)
    assert scheme.state() == ({}, {}) and scheme.vokens.sizes == SIZES and not scheme.avoided


def test_head_room_of_the_extra_symbol():
    world = World([(0.0, 1.0)] * 40)
    derived, asked = make("extra-symbol"), make("extra-symbol", extra_symbol_size=50)
    for scheme in (derived, asked):
        scheme.fit([str(i) for i in range(40)], world.codes, world.distances)
    assert derived.vokens.sizes == (3, 4, 80) and asked.vokens.sizes == (3, 4, 50)
    assert derived.vokens.learned == 2
    assert asked.extra_probabilities().tolist() == pytest.approx([1 / 40] * 40 + [0] * 10)
