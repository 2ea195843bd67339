"""Restricted searches against the definition, and against a catalog of the allowed images alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genret.api import Restriction
from genret.components.retrievers.two_tower import ROCCHIO_GAMMA
from genret.errors import UsageError
from genret.search.restrict import Allowed
from tests.search.fakes import Writer, generative, image, in_memory, two_tower

COLOURS = ("red", "blue")
codes = st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3)).flatmap(
    lambda full: st.integers(1, 3).map(lambda length: full[:length])
)


@st.composite
def worlds(draw: Any) -> dict[str, tuple[list[tuple[int, ...]], str, tuple[float, ...]]]:
    """Images with one to three identifiers, which they may share, a colour and a vector."""
    count = draw(st.integers(1, 12))
    numbers = st.integers(-4, 4).map(float)
    return {
        f"i{number}": (
            draw(st.lists(codes, min_size=1, max_size=3, unique=True)),
            draw(st.sampled_from(COLOURS)),
            (*draw(st.tuples(numbers, numbers, numbers)), 5.0),
        )
        for number in range(count)
    }


def restrictions(names: list[str]) -> st.SearchStrategy[Restriction]:
    some = st.lists(st.sampled_from(names), max_size=3)
    return st.builds(
        Restriction,
        where=st.sampled_from(["", "colour=red"]),
        only=st.one_of(st.none(), st.lists(st.sampled_from(names), max_size=6)),
        without=some,
        unlike=some,
        unlike_symbols=st.integers(1, 5),
    )


def may_be_found(world: Any, restriction: Restriction) -> dict[str, list[tuple[int, ...]]]:
    """The definition: the allowed images, with those of their identifiers that begin like no rejected one's."""
    length = restriction.unlike_symbols
    ended = [[(*one, "end")[:length] for one in world[name][0]] for name in restriction.unlike]
    banned = {beginning for beginnings in ended for beginning in beginnings}
    found = {}
    for name, (identifiers, colour, _) in world.items():
        if restriction.where and colour != "red":
            continue
        if restriction.only is not None and name not in restriction.only:
            continue
        if name in restriction.without or name in restriction.unlike:
            continue
        if left := [one for one in identifiers if (*one, "end")[:length] not in banned]:
            found[name] = left
    return found


def shown(result: Any) -> list[tuple[str, list[str]]]:
    return [(hit.image_id, hit.identifier) for hit in result.hits]


def catalog_of(world: Any, identifiers: Any = None) -> Any:
    catalog = in_memory()
    for name, (own, colour, vector) in world.items():
        if identifiers is None or name in identifiers:
            catalog.add([image(name, own if identifiers is None else identifiers[name], vector, colour=colour)])
    return catalog


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_each_query_finds_what_a_catalog_of_its_images_alone_would_give(data: Any) -> None:
    world = data.draw(worlds())
    names = list(world)
    if all(colour == "blue" for _, colour, _ in world.values()):
        world[names[0]] = (world[names[0]][0], "red", world[names[0]][2])
    each = data.draw(st.lists(restrictions(names), min_size=1, max_size=4))
    queries = [f"q{number}" for number in range(len(each))]
    k, beams = data.draw(st.integers(1, 14)), data.draw(st.integers(1, 40))
    score = data.draw(st.sampled_from(["level", "trie"]))
    everything = generative(catalog_of(world), score=score)
    writer = Writer()
    found = everything.search(queries, k, num_beams=beams, restrict=each)
    for query, restriction, result in zip(queries, each, found, strict=True):
        allowed = may_be_found(world, restriction)
        alone = generative(catalog_of(world, allowed), score=score).search([query], k, num_beams=beams)[0]
        assert shown(result) == shown(alone)
        np.testing.assert_allclose([h.score for h in result.hits], [h.score for h in alone.hits], atol=1e-4)
        if score == "level" and beams >= 40:  # nothing is pruned: the definition of the ranking itself
            best = {
                name: max((writer.log_probability(query, one), one) for one in identifiers)
                for name, identifiers in allowed.items()
            }
            order = sorted(best, key=lambda name: (-round(best[name][0], 4), names.index(name)))[:k]
            assert [hit.image_id for hit in result.hits] == order
            np.testing.assert_allclose([h.score for h in result.hits], [best[name][0] for name in order], atol=1e-4)
    shared = everything.search(queries, k, num_beams=beams, restrict=each[0])
    assert shown(shared[0]) == shown(found[0])


@pytest.mark.parametrize("index", ["exact", "hnsw"])
def test_dense_searches_obey_the_same_and_move_away_from_rejected_images(index: str) -> None:
    if index == "hnsw":
        pytest.importorskip("faiss")

    @settings(deadline=None, max_examples=12)
    @given(st.data())
    def holds(data: Any) -> None:
        world = data.draw(worlds())
        names = list(world)
        world[names[0]] = (world[names[0]][0], "red", world[names[0]][2])
        each = data.draw(st.lists(restrictions(names), min_size=1, max_size=3))
        queries = [" ".join(str(data.draw(st.integers(-3, 3))) for _ in range(3)) + " 2" for _ in each]
        retriever = two_tower(catalog_of(world), index=index)
        k = data.draw(st.integers(1, 14))
        vectors = torch.tensor([vector for _, _, vector in world.values()])
        unit = torch.nn.functional.normalize(vectors, dim=1).half().float()
        for query, restriction, result in zip(queries, each, retriever.search(queries, k, restrict=each), strict=True):
            rejected = sorted({names.index(name) for name in restriction.unlike})
            moved = retriever.text_vectors([query])[0]
            if rejected:
                moved = moved - ROCCHIO_GAMMA * unit[rejected].mean(0)
            scores = (unit @ moved).tolist()
            allowed = may_be_found(
                world, restriction._replace(unlike=[], without=[*restriction.without, *restriction.unlike])
            )
            expected = sorted(allowed, key=lambda name: -round(scores[names.index(name)], 4))[:k]
            assert len(result.hits) == len(expected) and {hit.image_id for hit in result.hits} <= set(allowed)
            found = [hit.score for hit in result.hits]
            np.testing.assert_allclose(found, [scores[names.index(hit.image_id)] for hit in result.hits], atol=1e-4)
            np.testing.assert_allclose(found, [scores[names.index(name)] for name in expected], atol=2e-4)

    holds()


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_keys_are_looked_up_alike_whether_few_or_many(data: Any) -> None:
    keys = st.integers(0, data.draw(st.sampled_from([10, 100_000])))
    sets = st.lists(keys, max_size=6, unique=True).map(lambda some: np.array(sorted(some), dtype=np.int64))
    only, without = data.draw(st.one_of(st.none(), sets)), data.draw(sets)
    asked = data.draw(st.lists(st.one_of(keys, st.just(-1)), max_size=8))
    expected = [key >= 0 and (only is None or key in only) and key not in without for key in asked]
    few = np.array(asked, dtype=np.int64)
    assert Allowed(only, without).among(few.astype(np.int32)).tolist() == expected
    many = np.tile(few, 20_000)
    assert (Allowed(only, without).among(many).reshape(-1, len(asked)) == expected).all() if asked else True


@pytest.mark.parametrize("field", ["only", "without", "unlike"])
def test_an_unknown_id_is_named(field: str) -> None:
    hidden = image("hidden", [(0,)])._replace(searchable=False)
    catalog = in_memory()
    catalog.add([image("there", [(1,)]), hidden])
    for retriever in (generative(catalog), two_tower(catalog)):
        for unknown in ("nowhere", "hidden"):
            with pytest.raises(UsageError, match=f"^no searchable image has the id '{unknown}'; ids are"):
                retriever.search(["1 0"], restrict=Restriction(**{field: ["there", unknown]}))
    with pytest.raises(UsageError, match="2 queries and 1 restrictions"):
        generative(catalog).search(["a", "b"], restrict=[Restriction()])
    with pytest.raises(UsageError, match="at least 1 symbol"):
        generative(catalog).search(["a"], restrict=Restriction(unlike_symbols=0))


def test_equal_restrictions_are_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = in_memory()
    catalog.add([image(f"i{n}", [(n % 3, n % 3)], colour=COLOURS[n % 2]) for n in range(9)])
    retriever = generative(catalog, batch_size=2)
    asked: list[str] = []
    view = type(catalog).__mro__[1]
    monkeypatch.setattr(
        view, "keys_where", lambda self, where, old=view.keys_where: (asked.append(where), old(self, where))[1]
    )
    each = [Restriction("colour=red", without=["i0"]), Restriction("colour=red", without=("i0",)), Restriction()] * 3
    results = retriever.search(["x"] * 9, restrict=each)
    assert asked == ["colour=red"]
    assert all(shown(a) == shown(b) for a, b in zip(results, results[3:], strict=False))
