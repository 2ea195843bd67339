"""The catalog against a plain dictionary, and against what goes wrong with files."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from genret.api import IndexReport
from genret.catalog import engine
from genret.catalog.codec import pack_codes, pack_texts
from genret.catalog.store import Catalog, NewImage
from genret.catalog.write import CHUNK
from genret.errors import GenretError, UnknownName, UsageError


def image(name: str, codes=((1, 2),), sha: str | None = None, **more) -> NewImage:
    vector = torch.tensor([float(len(name)), 1.0, 0.5])
    return NewImage(name, f"/{name}.png", sha or name, pack_codes(torch.tensor(codes)), vector, **more)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.sqlite"


def test_what_goes_in_comes_out(catalog):
    report = catalog.add(
        [
            image(
                "a",
                [(3, 1), (0, 7)],
                split="test",
                captions=("one", "two"),
                metadata={"emoji": "🐶", "n": 1, "x": None},
            ),
            image("bb", [(3, 1)], split="test", captions=("three",)),
            image("ccc", [(70000, 2)], split="dev", searchable=False),
            image("dddd", [(5, -1)]),
        ]
    )
    assert report == IndexReport(4, 0, [])
    keys = catalog.keys_of(["bb", "nobody", "a", "a"])
    assert keys[1] == -1 and keys[2] == keys[3]
    rows = catalog.lookup(keys[[0, 2, 0]])
    assert [row.image_id for row in rows] == ["bb", "a", "bb"]
    assert rows[1].metadata == {"emoji": "🐶", "n": 1, "x": None}
    assert (rows[1].uri, rows[1].sha256, rows[1].split, rows[1].searchable) == ("/a.png", "a", "test", True)
    everything = catalog.read_identifiers()
    a, b, c, d = catalog.keys_of(["a", "bb", "ccc", "dddd"])
    assert everything.image_keys.tolist() == [a, a, b, c, d]
    assert everything.codes.tolist() == [[0, 7], [3, 1], [3, 1], [70000, 2], [5, -1]]
    assert catalog.read_identifiers(split="test").codes.tolist() == [[0, 7], [3, 1], [3, 1]]
    assert catalog.read_identifiers(searchable=True).image_keys.tolist() == [a, a, b, d]
    assert catalog.read_identifiers(split="dev", searchable=True).codes is None
    assert catalog.captions("test").texts == ["one", "two", "three"]
    assert catalog.captions("test").image_keys.tolist() == [a, a, b]
    assert catalog.searchable_keys().tolist() == [a, b, d] and catalog.keys("dev").tolist() == [c]
    assert (catalog.image_count(), catalog.image_count("test"), catalog.image_count(searchable=False)) == (4, 2, 1)
    assert catalog.splits() == {"test": 2, "dev": 1, None: 1}
    vectors = catalog.features_of(np.array([b, -1, a, b]))
    assert vectors.tolist() == [[2, 1, 0.5], [0, 0, 0], [1, 1, 0.5], [2, 1, 0.5]]
    assert catalog.features_of(np.zeros(0, dtype=np.int64)).shape == (0, 3)


def test_chunks_are_bounded_and_join_to_the_whole(catalog):
    catalog.add(image(f"i{i:03}", [(i % 7, i), (i, i % 3)] if i % 2 else [(i, -1)]) for i in range(700))
    chunks = list(catalog.identifier_rows(chunk=64))
    assert max(len(chunk.image_keys) for chunk in chunks) == 64
    whole = catalog.read_identifiers()
    assert np.concatenate([chunk.image_keys for chunk in chunks]).tolist() == whole.image_keys.tolist()
    expected = []
    for i in range(700):
        expected += sorted({(i % 7, i), (i, i % 3)}) if i % 2 else [(i, -1)]
    assert whole.codes.tolist() == [list(row) for row in expected]
    keys = catalog.keys()
    assert [row.image_id for row in catalog.lookup(keys)] == [f"i{i:03}" for i in range(700)]
    assert len(catalog.features_of(keys)) == 700


def test_text_identifiers(catalog):
    catalog.add(
        [NewImage("a", "a", "a", pack_texts(["two dogs", "a dog"])), NewImage("b", "b", "b", pack_texts(["a dog"]))]
    )
    rows = catalog.read_identifiers()
    assert rows.codes is None and rows.texts == ["a dog", "two dogs", "a dog"]


def test_a_caught_up_catalog_says_what_is_already_there(catalog):
    catalog.add([image("a"), image("b")])
    version, key = catalog.version, catalog.keys_of(["a"])[0]
    again = catalog.add([image("a"), image("b")])
    assert again.added == 0 and [s.reason for s in again.skipped] == ["already there"] * 2
    assert catalog.version == version
    replaced = catalog.add([image("a", [(9, 9)], sha="other", metadata={"new": 1})])
    assert replaced.added == 1 and catalog.version > version
    assert catalog.keys_of(["a"])[0] == key
    assert catalog.lookup(np.array([key]))[0].metadata == {"new": 1}
    assert catalog.read_identifiers().codes.tolist() == [[9, 9], [1, 2]]


def test_one_id_twice_in_one_call(catalog):
    report = catalog.add([image("a", sha="1"), image("a", sha="1"), image("a", [(4, 4)], sha="2")])
    assert report.added == 2 and [s.reason for s in report.skipped] == ["already there"]
    assert catalog.read_identifiers().codes.tolist() == [[4, 4]]


def test_the_data_sets_images_are_safe_from_the_users(catalog):
    catalog.add(
        [image("a", split="test", captions=("c",)), image("t", split="train", searchable=False, captions=("d",))]
    )
    report = catalog.add([image("a", [(8, 8)], sha="mine"), image("t", [(6, 6)])])
    assert report.added == 1 and "split 'test' has the id 'a'" in report.skipped[0].reason
    assert catalog.read_identifiers().codes.tolist() == [[1, 2], [6, 6]]
    # the training picture is searched from now on, and still belongs to its split with its captions
    assert catalog.keys("train", searchable=True).tolist() == catalog.keys_of(["t"]).tolist()
    assert catalog.captions("train").texts == ["d"]


def test_removing_takes_everything_along_and_keys_are_not_reused(catalog):
    catalog.add([image("a", captions=("x",), split="test"), image("b")])
    key = catalog.keys_of(["b"])[0]
    report = catalog.remove(["b", "nobody", "b", "a"])
    assert report.removed == 2 and report.skipped == [("nobody", "there is no image of this id")]
    with engine.reading(catalog._database) as connection:
        for table in ("images", "identifiers", "captions", "features"):
            assert connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one() == 0
    with pytest.raises(GenretError, match="try again"):
        catalog.lookup(np.array([key]))
    with pytest.raises(GenretError, match="try again"):
        catalog.features_of(np.array([key]))
    catalog.add([image("b")])
    assert catalog.keys_of(["b"])[0] > key
    version = catalog.version
    assert catalog.remove(["nobody"]).removed == 0 and catalog.version == version


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["add", "remove"]), st.integers(0, 2)), max_size=12))
def test_any_history_equals_a_dictionary(history):
    catalog, model = Catalog.create("sqlite://"), {}
    version = catalog.version
    for name, what, content in history:
        if what == "add":
            changed = model.get(name) != content
            assert catalog.add([image(name, [(content, 0)], sha=str(content))]).added == int(changed)
            model[name] = content
        else:
            changed = name in model
            assert catalog.remove([name]).removed == int(changed)
            model.pop(name, None)
        assert (catalog.version > version) if changed else (catalog.version == version)
        version = catalog.version
    rows = catalog.read_identifiers()
    names = [row.image_id for row in catalog.lookup(rows.image_keys)]
    found = {} if rows.codes is None else dict(zip(names, rows.codes[:, 0].tolist(), strict=True))
    assert found == model


def test_adding_is_all_or_nothing(catalog):
    def rows():
        for i in range(2 * CHUNK):  # more than a chunk, so that something was already written
            yield image(f"i{i}")
        raise RuntimeError("the pictures end here")

    version = catalog.version
    with pytest.raises(RuntimeError):
        catalog.add(rows())
    assert catalog.image_count() == 0 and catalog.version == version


def test_vectors_of_another_encoder_are_refused(catalog):
    catalog.add([image("a")])
    with pytest.raises(GenretError, match="width 3, not 2"):
        catalog.add([NewImage("b", "b", "b", vector=torch.ones(2))])
    assert catalog.image_count() == 1


def test_names_that_are_no_text_are_skipped(catalog):
    name = os.fsdecode(b"caf\xe9.png")
    report = catalog.add([NewImage(name, name, "x"), image("ok")])
    assert report.added == 1
    assert report.skipped == [("caf\\udce9.png", "its name is no valid UTF-8; rename the file")]
    assert catalog.keys_of([name]).tolist() == [-1]


def test_metadata_must_be_json(catalog):
    with pytest.raises(GenretError, match="'a' are no plain JSON"):
        catalog.add([image("a", metadata={"x": float("nan")})])


# ------------------------------------------------------------------------------------------------------------- files
def test_state_names_contents(path, tmp_path):
    one, other = Catalog.create(path), Catalog.create(tmp_path / "other.sqlite")
    assert one.state != other.state
    before = one.state
    one.add([image("a")])
    assert one.state != before
    one.close()
    assert Catalog.open(path).state == one.state


def test_opening(path, tmp_path):
    with pytest.raises(GenretError, match=r"no catalog .*catalog\.sqlite"):
        Catalog.open(path)
    assert not path.exists()
    with Catalog.open(path, create=True, run_id="r") as made:
        made.add([image("a")])
    assert sorted(p.name for p in tmp_path.iterdir()) == [".catalog.lock", "catalog.sqlite"]
    with Catalog.open(path, run_id="r") as again:
        assert again.image_count() == 1 and again.path == path
    with Catalog.open(f"sqlite:///{path}") as by_url:
        assert by_url.image_count() == 1 and by_url.path == path
    with pytest.raises(GenretError, match=r"belongs to another run \(r, not other\)"):
        Catalog.open(path, run_id="other")
    with pytest.raises(GenretError, match="already a catalog"):
        Catalog.create(path)
    with Catalog.create(path, overwrite=True) as fresh:
        assert fresh.image_count() == 0
    with pytest.raises(GenretError, match="a folder"):
        Catalog.open(tmp_path)
    with pytest.raises(GenretError, match="there is no folder"):
        Catalog.create(tmp_path / "missing" / "catalog.sqlite")
    with pytest.raises(UsageError, match="no database"):
        Catalog.open("nonsense://x/y")


@pytest.mark.parametrize("content", [b"", b"this is no database at all" * 100, b"SQLite format 3\x00" + b"\x07" * 5000])
def test_files_that_are_no_catalogs(path, content):
    path.write_bytes(content)
    with pytest.raises(GenretError, match=r"catalog\.sqlite"):
        Catalog.open(path)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW more AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n",
        "ALTER TABLE images RENAME TO old;"
        "CREATE VIEW images AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT * FROM n, old",
        "CREATE TRIGGER endless AFTER INSERT ON images BEGIN INSERT INTO captions SELECT new.id, x, '' FROM "
        "(WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n); END",
        "CREATE VIRTUAL TABLE more USING fts5(x)",
    ],
)
def test_catalogs_that_bring_views_or_triggers_are_not_opened(path, statement, monkeypatch):
    Catalog.create(path).close()
    with sqlite3.connect(path) as plain:
        plain.executescript(statement)
    plain.close()
    before = path.read_bytes()
    for writable in (True, False):
        monkeypatch.setattr(os, "access", lambda *_, writable=writable: writable)
        with pytest.raises(
            GenretError, match=r"catalog\.sqlite has the (view|trigger|virtual table) '\w+', which no"
        ) as error:
            Catalog.open(path)
        assert "\n" not in str(error.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("suffix", ["", "-journal", "-wal", "-shm"])
def test_pipes_are_not_waited_for(path, suffix):
    if suffix:
        Catalog.create(path).close()
    os.mkfifo(path.with_name(path.name + suffix))
    for action in (Catalog.open, Catalog.create):
        with pytest.raises(GenretError, match=rf"catalog\.sqlite{suffix} is no regular file"):
            action(path)


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_what_is_refused_is_left_as_it_was(path, mode):
    with sqlite3.connect(path) as plain:
        plain.execute(f"PRAGMA journal_mode = {mode}")
        plain.execute("CREATE TABLE things (x)")
        plain.execute("INSERT INTO things VALUES (1)")
    plain.close()
    before = path.read_bytes()
    for action in (Catalog.open, Catalog.create, lambda path: Catalog.open(path, create=True)):
        with pytest.raises(GenretError, match="is no catalog of genret"):
            action(path)
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == [path.name]
    path.write_bytes(b"")
    with pytest.raises(GenretError, match="is no catalog of genret"):
        Catalog.open(path)
    assert path.read_bytes() == b""


def test_catalogs_are_written_ahead_and_never_mapped(path):
    """SQLite before 3.51.3 damages files in WAL mode that are mapped, or written or checkpointed by two at once."""
    with Catalog.create(path) as catalog:
        catalog.add([image("a")])
        with engine.reading(catalog._database) as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
            assert not connection.exec_driver_sql("PRAGMA mmap_size").scalar()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE images SET metadata = '[1]'",
        "UPDATE images SET metadata = 7",
        "UPDATE images SET metadata = '{'",
        f"UPDATE images SET metadata = '{'[' * 100_000}'",
        "UPDATE images SET uri = X'00ff'",
        "UPDATE images SET image_id = CAST(X'ff' AS TEXT)",
        "UPDATE images SET sha256 = X'00'",
        "UPDATE images SET split = X'00'",
        "UPDATE identifiers SET identifier = 5",
        "UPDATE identifiers SET identifier = 'text'",
        "UPDATE features SET vector = 1000000000000",
        "UPDATE features SET vector = 'text'",
        "UPDATE properties SET value = 'many' WHERE key = 'feature_dim'",
        "UPDATE properties SET value = 'many' WHERE key = 'highest_key'",
        "UPDATE properties SET value = 'many' WHERE key = 'schema'",
        "DELETE FROM versions; INSERT INTO versions VALUES ('first')",
    ],
)
def test_values_of_wrong_types_are_one_sentence(path, change):
    with Catalog.create(path) as catalog:
        catalog.add([image("a", split="test", captions=("x",), metadata={"a": 1})])
    with sqlite3.connect(path) as plain:
        plain.executescript(change)
    plain.close()
    found = []
    for action in (
        lambda catalog: catalog.lookup(np.array([1])),
        lambda catalog: catalog.keys_where("a = 1"),
        lambda catalog: catalog.keys_where("b = 1"),
        lambda catalog: catalog.read_identifiers(),
        lambda catalog: catalog.identifiers_of(np.array([1])),
        lambda catalog: catalog.features_of(np.array([1])),
        lambda catalog: catalog.version,
        lambda catalog: catalog.changes_since(0),
        lambda catalog: catalog.add([image("b")]),
    ):
        try:
            with Catalog.open(path) as catalog:
                action(catalog)
        except UnknownName:
            pass
        except GenretError as error:
            found.append(str(error))
    assert found and all(("damaged" in said and "\n" not in said) or "Could not decode" in said for said in found)


def test_a_damaged_page_is_named(path):
    with Catalog.create(path) as catalog:
        catalog.add(image(f"i{i}", metadata={"text": "x" * 500}) for i in range(200))
        keys = catalog.keys()
    data = bytearray(path.read_bytes())
    data[8192:] = b"\xee" * (len(data) - 8192)
    path.write_bytes(bytes(data))
    with pytest.raises(GenretError, match=r"catalog\.sqlite is damaged"):
        Catalog.open(path).lookup(keys)


def test_other_databases_and_newer_catalogs(path, tmp_path):
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as plain:
        plain.execute("CREATE TABLE things (x)")
    plain.close()
    with pytest.raises(GenretError, match="no catalog of genret"):
        Catalog.open(other)
    Catalog.create(path).close()
    with sqlite3.connect(path) as plain:
        plain.execute("UPDATE properties SET value = '99' WHERE key = 'schema'")
    plain.close()
    with pytest.raises(GenretError, match="newer genret"):
        Catalog.open(path)


def test_a_full_disk_changes_nothing(path):
    with Catalog.create(path) as catalog:
        catalog.add([image("a")])
    with Catalog.open(path) as catalog:
        catalog._database.engine.dispose()

        @event.listens_for(catalog._database.engine, "connect")
        def small(connection, record):
            connection.execute("PRAGMA max_page_count = 30")

        with pytest.raises(GenretError, match=r"catalog\.sqlite: the disk is full"):
            catalog.add(image(f"i{i}", metadata={"text": "x" * 5000}) for i in range(100))
        assert catalog.image_count() == 1


def test_a_folder_that_may_only_be_read_is_searched_all_the_same(path, monkeypatch):
    with Catalog.create(path) as catalog:
        catalog.add([image("a")])
    before = sorted(p.name for p in path.parent.iterdir())
    monkeypatch.setattr(os, "access", lambda *_: False)
    with Catalog.open(path) as catalog:
        assert catalog.image_count() == 1 and catalog.keys_where("image_id = a").tolist() == [1]
        with pytest.raises(GenretError, match="may only be read"):
            catalog.add([image("b")])
    assert sorted(p.name for p in path.parent.iterdir()) == before


def test_paths_with_special_characters(tmp_path, monkeypatch):
    folder = tmp_path / "a b%20?#é"
    folder.mkdir()
    with Catalog.create(folder / "c.sqlite") as catalog:
        catalog.add([image("a")])
    assert (folder / "c.sqlite").exists()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with Catalog.open(folder / "c.sqlite") as catalog:
        assert catalog.image_count() == 1


def test_waiting_for_another_writer_ends(path, monkeypatch):
    monkeypatch.setattr(engine, "BUSY_TIMEOUT", 0.1)
    with Catalog.create(path) as one, Catalog.open(path) as other:

        def rows():
            yield image("a")
            with pytest.raises(GenretError, match="being written by another process"):
                other.add([image("b")])

        assert one.add(rows()).added == 1
        assert other.image_count() == 1


def test_several_writers_take_turns_and_readers_see_whole_changes(path):
    Catalog.create(path).close()
    errors, seen, done = [], [], threading.Event()

    def write(name):
        try:
            with Catalog.open(path) as own:
                for i in range(8):
                    own.add([image(f"{name}{i}"), image(f"{name}{i}'")])
        except Exception as error:
            errors.append(error)

    def read():
        try:
            with Catalog.open(path) as own:
                while not done.is_set():
                    seen.append(own.image_count())
        except Exception as error:
            errors.append(error)

    writers = [threading.Thread(target=write, args=(name,)) for name in "xyz"]
    reader = threading.Thread(target=read)
    for thread in [reader, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert errors == []
    assert seen == sorted(seen) and all(count % 2 == 0 for count in seen)
    with Catalog.open(path) as catalog:
        assert catalog.image_count() == 48
