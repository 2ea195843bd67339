"""Catalogs as older versions of genret made them, by the SQL that these sent, brought up to date."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, inspect

from genret.catalog.engine import connect_to, reading
from genret.catalog.schema import metadata
from genret.catalog.store import Catalog, NewImage
from genret.errors import GenretError
from genret.shell import migrate

VERSION_1 = {
    "sqlite": """
CREATE TABLE images (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, image_id TEXT NOT NULL, uri TEXT NOT NULL,
    sha256 VARCHAR(64) NOT NULL, split VARCHAR(255), searchable BOOLEAN NOT NULL, metadata JSON NOT NULL,
    UNIQUE (image_id));
CREATE INDEX images_by_split ON images (split);
CREATE TABLE identifiers (id INTEGER NOT NULL, image_key INTEGER NOT NULL, identifier BLOB NOT NULL, PRIMARY KEY (id),
    FOREIGN KEY(image_key) REFERENCES images (id) ON DELETE CASCADE);
CREATE INDEX identifiers_by_identifier ON identifiers (identifier);
CREATE INDEX identifiers_by_image ON identifiers (image_key);
CREATE TABLE captions (image_key INTEGER NOT NULL, position INTEGER NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (image_key, position), FOREIGN KEY(image_key) REFERENCES images (id) ON DELETE CASCADE);
CREATE TABLE features (image_key INTEGER NOT NULL, vector BLOB NOT NULL, PRIMARY KEY (image_key),
    FOREIGN KEY(image_key) REFERENCES images (id) ON DELETE CASCADE);
CREATE TABLE properties ("key" VARCHAR(64) NOT NULL, value TEXT NOT NULL, PRIMARY KEY ("key"))""",
    "postgresql": """
CREATE TABLE images (id BIGSERIAL NOT NULL, image_id TEXT NOT NULL, uri TEXT NOT NULL, sha256 VARCHAR(64) NOT NULL,
    split VARCHAR(255), searchable BOOLEAN NOT NULL, metadata JSON NOT NULL, PRIMARY KEY (id), UNIQUE (image_id));
CREATE INDEX images_by_split ON images (split);
CREATE TABLE identifiers (id BIGSERIAL NOT NULL, image_key BIGINT NOT NULL, identifier BYTEA NOT NULL, PRIMARY KEY (id),
    FOREIGN KEY(image_key) REFERENCES images (id) ON DELETE CASCADE);
CREATE INDEX identifiers_by_identifier ON identifiers (identifier);
CREATE INDEX identifiers_by_image ON identifiers (image_key);
CREATE TABLE captions (image_key BIGINT NOT NULL, position INTEGER NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (image_key, position), FOREIGN KEY(image_key) REFERENCES images (id) ON DELETE CASCADE);
CREATE TABLE features (image_key BIGINT NOT NULL, vector BYTEA NOT NULL, PRIMARY KEY (image_key),
    FOREIGN KEY(image_key) REFERENCES images (id) ON DELETE CASCADE);
CREATE TABLE properties (key VARCHAR(64) NOT NULL, value TEXT NOT NULL, PRIMARY KEY (key))""",
}
ROWS = """
INSERT INTO images (image_id, uri, sha256, split, searchable, metadata) VALUES
    ('a', '/a.png', 'aa', 'test', TRUE, '{"n": 1}'), ('b', '/b.png', 'bb', NULL, TRUE, '{}'),
    ('t', '/t.png', 'tt', 'train', FALSE, '{}'), ('gone', '/g.png', 'gg', NULL, TRUE, '{}');
INSERT INTO identifiers (image_key, identifier) VALUES
    (2, {C00010002}), (1, {C00030001}), (1, {C00000007}), (3, {C00010002}), (4, {C00050005});
INSERT INTO captions (image_key, position, text) VALUES (1, 0, 'one'), (1, 1, 'two');
INSERT INTO features (image_key, vector) VALUES (1, {003c0040}), (2, {00000000}), (3, {003c003c});
DELETE FROM images WHERE id = 4;
INSERT INTO properties (key, value) VALUES
    ('schema', '1'), ('run_id', 'run-1'), ('version', '7'), ('uid', 'u'), ('feature_dim', '2')"""
BLOBS = {"C00010002": "4300010002", "C00030001": "4300030001", "C00000007": "4300000007", "C00050005": "4300050005"}


opened = partial(Catalog.open, upgrade=migrate.upgrade)


@pytest.fixture
def old(where) -> str | Path:
    """A catalog of schema version 1."""
    database = connect_to(where)
    kind = database.engine.dialect.name
    rows = ROWS
    for name in (*BLOBS, "003c0040", "00000000", "003c003c"):
        digits = BLOBS.get(name, name)
        rows = rows.replace(f"{{{name}}}", f"X'{digits}'" if kind == "sqlite" else f"'\\x{digits}'")
    with database.engine.begin() as connection:
        if kind == "sqlite":
            connection.exec_driver_sql("PRAGMA foreign_keys = ON")
        for statement in (VERSION_1[kind] + ";" + rows).split(";\n"):
            connection.exec_driver_sql(statement.strip())
    database.engine.dispose()
    return where


def dump(where) -> dict[str, list[tuple]]:
    """All tables with all their rows."""
    database = connect_to(where)
    with database.engine.begin() as connection:
        tables = sorted(inspect(connection).get_table_names())
        found = {
            t: sorted(map(repr, map(tuple, connection.exec_driver_sql(f"SELECT * FROM {t}").all()))) for t in tables
        }
    database.engine.dispose()
    return found


def test_version_1_becomes_what_a_new_catalog_is(old, new_place):
    with opened(old, run_id="run-1") as catalog:
        rows = catalog.read_identifiers()
        assert rows.image_keys.tolist() == [1, 1, 2, 3] and rows.codes.tolist() == [[0, 7], [3, 1], [1, 2], [1, 2]]
        assert catalog.read_identifiers(searchable=True).image_keys.tolist() == [1, 1, 2]
        assert [row[:6] for row in catalog.lookup(catalog.keys())] == [
            (1, "a", "/a.png", "aa", "test", True),
            (2, "b", "/b.png", "bb", None, True),
            (3, "t", "/t.png", "tt", "train", False),
        ]
        assert catalog.keys_where("n = 1").tolist() == [1] and catalog.captions("test").texts == ["one", "two"]
        assert catalog.features_of(np.array([1, 2, 3])).tolist() == [[1, 2], [0, 0], [1, 1]]
        assert (catalog.run_id, catalog.uid, catalog.highest_key()) == ("run-1", "u", 4)
        assert catalog.changes_since(7) is None
        version = catalog.version
        with reading(catalog._database) as connection:
            options = {"compare_type": True, "compare_server_default": True}
            assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
        catalog.add([NewImage("c", "c", "c", [b"C\x00\x09\x00\x09"])])
        assert catalog.keys_of(["c"]).tolist() == [5]
        assert catalog.changes_since(version).images.tolist() == [5]
    with opened(old) as again, Catalog.create(new_place(again._database.engine.dialect.name)) as fresh:
        assert again.highest_key() == 5
        assert shape(again) == shape(fresh)


def shape(catalog: Catalog) -> dict[str, object]:
    """All that a database can tell of its tables; in SQLite also how their rows lie."""
    said = inspect(catalog._database.engine)
    tables = {
        name: (
            [{k: str(v) for k, v in column.items()} for column in said.get_columns(name)],
            said.get_pk_constraint(name)["constrained_columns"],
            sorted((str(i["name"]), tuple(i["column_names"]), bool(i["unique"])) for i in said.get_indexes(name)),
            [
                (key["constrained_columns"], key["referred_table"], key["options"])
                for key in said.get_foreign_keys(name)
            ],
        )
        for name in said.get_table_names()
    }
    if catalog.path is not None:
        with reading(catalog._database) as connection:
            plain = connection.exec_driver_sql("SELECT name FROM pragma_table_list WHERE wr AND schema = 'main'")
            tables["without rowid"] = sorted(plain.scalars())
    return tables


def test_an_interrupted_upgrade_leaves_the_catalog_as_it_was(old, monkeypatch):
    before = dump(old)
    step = migrate._STEPS[1]

    def cut_off(*arguments):
        step(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(migrate._STEPS, 1, cut_off)
        with pytest.raises(KeyboardInterrupt):
            opened(old)
    assert dump(old) == before
    with opened(old) as catalog:
        assert catalog.image_count() == 3


def test_what_would_be_lost_is_not_moved(old):
    database = connect_to(old)
    with database.engine.begin() as connection:
        if database.path is None:
            connection.exec_driver_sql("ALTER TABLE identifiers DROP CONSTRAINT identifiers_image_key_fkey")
            connection.exec_driver_sql("INSERT INTO identifiers (image_key, identifier) VALUES (99, '\\x43')")
    if database.path is not None:
        plain = create_engine(f"sqlite:///{database.path}")
        with plain.begin() as connection:
            connection.exec_driver_sql("INSERT INTO identifiers (image_key, identifier) VALUES (99, X'43')")
        plain.dispose()
    database.engine.dispose()
    before = dump(old)
    with pytest.raises(GenretError, match="is damaged: identifiers belong to images that are not there"):
        opened(old)
    assert dump(old) == before


FACTS = [{"größe": "klein", "n": [1, None]}, {"plain": "text"}, {"size": "\\u00e9", "half": "\udce9", "line": "\x01"}]


@pytest.fixture
def escaped(where) -> str | Path:
    """A catalog of schema version 2: its metadata hold ASCII alone."""
    with Catalog.create(where, "run-1") as catalog:
        catalog.add(NewImage(str(i), str(i), str(i), metadata=facts) for i, facts in enumerate(FACTS * 3))
        with catalog._database.engine.begin() as connection:
            for i, facts in enumerate(FACTS * 3):
                connection.exec_driver_sql(f"UPDATE images SET metadata = '{json.dumps(facts)}' WHERE image_id = '{i}'")
            connection.exec_driver_sql("UPDATE properties SET value = '2' WHERE key = 'schema'")
    return where


def test_version_2_keeps_its_metadata_as_they_are_written(escaped, monkeypatch):
    monkeypatch.setattr(migrate, "CHUNK", 2)
    before, said = dump(escaped), metadata_of(escaped)
    assert said.count("\\u00f6") == 3 and said.isascii()
    with opened(escaped, run_id="run-1") as catalog:
        assert [row.metadata for row in catalog.lookup(catalog.keys())] == FACTS * 3
        if isinstance(escaped, Path):  # PostgreSQL cannot look into half a letter
            assert catalog.keys_where("größe = klein").tolist() == [1, 4, 7]
            assert catalog.keys_where("size = '\\\\u00e9'").tolist() == [3, 6, 9]
    assert metadata_of(escaped) == said.replace("\\u00f6", "ö").replace("\\u00df", "ß")
    after = dump(escaped)
    for table in before.keys() - {"images", "properties"}:
        assert before[table] == after[table]


def metadata_of(where) -> str:
    """As they are stored."""
    with connect_to(where).engine.begin() as connection:
        return "\n".join(connection.exec_driver_sql("SELECT CAST(metadata AS TEXT) FROM images ORDER BY id").scalars())


def test_a_broken_upgrade_of_metadata_changes_nothing(escaped, monkeypatch):
    monkeypatch.setattr(migrate, "CHUNK", 2)
    with connect_to(escaped).engine.begin() as connection:
        if connection.dialect.name == "sqlite":  # PostgreSQL keeps no such thing
            connection.exec_driver_sql("UPDATE images SET metadata = '{\\u' WHERE image_id = '7'")
    before = dump(escaped)
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "set_property", lambda *_: (_ for _ in ()).throw(GenretError("cut off")))
        with pytest.raises(GenretError, match=r"cut off|is damaged: metadata are no JSON"):
            opened(escaped)
    assert dump(escaped) == before


@pytest.mark.parametrize("where", ["sqlite"], indirect=True)
def test_version_2_can_be_read_where_it_may_not_be_written(escaped, monkeypatch):
    before = escaped.read_bytes()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with opened(escaped) as catalog:
        assert catalog.keys_where("plain = text").tolist() == [2, 5, 8]
    assert escaped.read_bytes() == before


def test_another_runs_catalog_is_left_alone(old):
    before = dump(old)
    with pytest.raises(GenretError, match="belongs to another run"):
        opened(old, run_id="run-2")
    assert dump(old) == before


def test_an_upgrade_leaves_no_statement_open_that_locks_its_tables(old, monkeypatch):
    """SQLite drops no table while a SELECT of the same connection is unfinished; the collector must not be needed."""
    kept = []
    execute = Connection.execute
    monkeypatch.setattr(
        Connection, "execute", lambda *given, **options: kept.append(execute(*given, **options)) or kept[-1]
    )
    opened(old).close()
    assert kept


def test_who_comes_second_has_nothing_to_do(old):
    opened(old).close()
    before = dump(old)
    migrate.upgrade(connect_to(old))
    assert dump(old) == before


@pytest.mark.parametrize("where", ["sqlite"], indirect=True)
def test_an_old_catalog_that_may_only_be_read_says_so(old, monkeypatch):
    before = old.read_bytes()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(
        GenretError, match=r"catalog\.sqlite was made by an older genret and may only be read here; copy"
    ):
        opened(old)
    assert old.read_bytes() == before


def test_without_an_upgrade_an_old_catalog_is_refused(old):
    with pytest.raises(GenretError, match="was made by an older genret; upgrade it first: genret catalog"):
        Catalog.open(old)
    opened(old).close()
    Catalog.open(old).close()
