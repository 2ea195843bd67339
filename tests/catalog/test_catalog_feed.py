"""What changed since a version, against two full reads; and snapshots beside a writer."""

from __future__ import annotations

import re

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event, insert

from genret.catalog import engine, feed
from genret.catalog.codec import pack_codes
from genret.catalog.schema import versions
from genret.catalog.store import Catalog, NewImage


def image(name: str, codes=((1, 2),), sha: str = "", **more) -> NewImage:
    return NewImage(name, name, sha or name, pack_codes(torch.tensor(codes)), **more)


def contents(view) -> dict[int, set[tuple[int, ...]]]:
    """What a searcher holds after a full load; searchable images without identifiers have none."""
    rows = view.read_identifiers(searchable=True)
    held: dict[int, set[tuple[int, ...]]] = {key: set() for key in view.searchable_keys().tolist()}
    for key, codes in zip(rows.image_keys.tolist(), [] if rows.codes is None else rows.codes.tolist(), strict=True):
        held[key].add(tuple(codes))
    return held


def brought_forward(held, changes):
    """The same after `changes`."""
    held = {key: names for key, names in held.items() if key not in set(changes.removed.tolist())}
    held |= {key: set() for key in changes.images.tolist()}
    codes = [] if changes.added.codes is None else changes.added.codes.tolist()
    for key, name in zip(changes.added.image_keys.tolist(), codes, strict=True):
        held[key].add(tuple(name))
    return held


def test_tells_what_to_forget_and_what_to_add(catalog):
    catalog.add([image("a"), image("b", [(3, 4), (5, 6)]), image("train", split="train", searchable=False)])
    a, b, train = catalog.keys_of(["a", "b", "train"]).tolist()
    before = catalog.version
    nothing = catalog.changes_since(before)
    assert (nothing.version, len(nothing.removed), len(nothing.images), nothing.added.codes) == (before, 0, 0, None)
    catalog.add([image("b", [(7, 8)], sha="other"), image("train"), image("new", [(0, 1), (0, 0)])])
    catalog.add([image("bare")._replace(identifiers=[])])
    catalog.remove(["a"])
    new, bare = catalog.keys_of(["new", "bare"]).tolist()
    changes = catalog.changes_since(before)
    assert changes.version == catalog.version > before
    assert changes.removed.tolist() == [a, b, train]  # train's identifiers were never searched; forgetting is harmless
    assert changes.images.tolist() == [b, train, new, bare]
    assert changes.added.image_keys.tolist() == [b, train, new, new]
    assert changes.added.codes.tolist() == [[7, 8], [1, 2], [0, 0], [0, 1]]
    catalog.remove(["b"])
    assert b not in catalog.changes_since(before).images


STEP = st.tuples(st.sampled_from("abcd"), st.sampled_from(["add", "hide", "remove"]), st.integers(0, 2))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(STEP, min_size=1, max_size=4), min_size=1, max_size=6))
def test_any_history_brings_any_version_forward(history):
    catalog = Catalog.create("sqlite://")
    known = [(catalog.version, contents(catalog))]
    for batch in history:
        catalog.add(
            image(name, [(content, 0), (content, i)], sha=str(content), searchable=what == "add")
            for i, (name, what, content) in enumerate(batch)
            if what != "remove"
        )
        catalog.remove([name for name, what, _ in batch if what == "remove"])
        known.append((catalog.version, contents(catalog)))
    for version, held in known:
        changes = catalog.changes_since(version)
        assert changes.version == known[-1][0]
        assert brought_forward(held, changes) == known[-1][1]


def test_versions_of_others_and_of_long_ago_are_unknown(catalog, monkeypatch):
    catalog.add([image("a")])
    assert catalog.changes_since(0) is None and catalog.changes_since(catalog.version + 1) is None
    assert catalog.changes_since(catalog.version - 1) is None  # between two versions there was none
    before = catalog.version
    catalog.add([image("b")])
    assert catalog.changes_since(before) is not None
    monkeypatch.setattr(feed, "HISTORY", 0)
    catalog.remove(["b"])
    assert catalog.changes_since(before) is None
    with engine.reading(catalog._database) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM versions").scalar_one() == 1


def test_a_copy_that_went_its_own_way_repeats_no_version(tmp_path):
    """A catalog restored from a copy must not pass for the one that a cache knows."""
    with Catalog.create(tmp_path / "one.sqlite") as catalog:
        catalog.add([image("a")])
    (tmp_path / "copy.sqlite").write_bytes((tmp_path / "one.sqlite").read_bytes())
    with Catalog.open(tmp_path / "one.sqlite") as one, Catalog.open(tmp_path / "copy.sqlite") as copy:
        assert one.state == copy.state
        one.add([image("b")])
        copy.add([image("c")])
        assert one.state != copy.state
        assert one.changes_since(copy.version) is None and copy.changes_since(one.version) is None


def test_a_clock_that_is_behind_does_not_turn_versions_back(catalog):
    with engine.writing(catalog._database) as connection:
        connection.execute(insert(versions).values(version=2**60))
    catalog.add([image("a")])
    assert catalog.version == 2**60 + 1 and len(catalog.changes_since(2**60).images) == 1


def test_a_snapshot_stays_as_it_was(catalog):
    catalog.add([image("a"), image("b", [(3, 4)], captions=("x",), split="test")])
    with catalog.snapshot() as view:
        version, state, held = view.version, view.state, contents(view)
        catalog.add([image("b", [(9, 9)], sha="other", split="test"), image("c")])
        catalog.remove(["a"])
        assert (view.version, view.state, contents(view)) == (version, state, held)
        assert view.keys_of(["a", "c"]).tolist() == [1, -1] and view.image_count() == 2
        assert [row.image_id for row in view.lookup(view.keys_where("image_id ~ a or split = test"))] == ["a", "b"]
        assert view.captions("test").texts == ["x"] and view.highest_key() == 2
        assert view.changes_since(version).version == version
    assert contents(catalog) == {2: {(9, 9)}, 3: {(1, 2)}}


def plan_of(catalog, action) -> list[str]:
    """How the database finds the rows of every statement of an action."""
    said: list[str] = []
    sqlite = catalog._database.path is not None

    def explain(connection, cursor, statement, parameters, context, many):
        if not statement.startswith("SELECT"):
            return
        with connection.connection.cursor() if not sqlite else connection.connection.dbapi_connection as own:
            if sqlite:
                rows = own.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            else:
                rows = own.execute(f"EXPLAIN {statement}", parameters).fetchall()
        said.append("\n".join(str(row[-1]) for row in rows))

    event.listen(catalog._database.engine, "before_cursor_execute", explain)
    try:
        action()
    finally:
        event.remove(catalog._database.engine, "before_cursor_execute", explain)
    return said


def test_everything_that_a_search_asks_goes_by_an_index(catalog):
    catalog.add(image(f"i{i:05}", [(i % 50, i)]) for i in range(5000))
    version = catalog.version
    catalog.add([image("new")])
    with engine.writing(catalog._database) as connection:
        connection.exec_driver_sql("ANALYZE")
    for action in (
        lambda: catalog.changes_since(version),
        lambda: catalog.keys_of(["i00007", "nobody"]),
        lambda: catalog.lookup(np.array([3, 4])),
        lambda: catalog.identifiers_of(np.array([3, 4])),
        lambda: catalog.version,
    ):
        plans = plan_of(catalog, action)
        assert plans
        for plan in plans:
            assert not re.search(
                r"SCAN (images|identifiers|features)|Seq Scan on (images|identifiers|features)", plan
            ), plan
