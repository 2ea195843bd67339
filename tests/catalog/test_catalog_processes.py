"""Several real processes at one catalog: readers see whole changes and never wait, writers take turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from genret.catalog import engine
from genret.catalog.store import Catalog, NewImage
from genret.errors import GenretError

SIZE = 40


@pytest.fixture(scope="module")
def program() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("processes.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    yield process
    process.stdin.close()
    process.wait(60)
    process.stdout.close()


@pytest.fixture
def order(where, program) -> Callable[..., Any]:
    """Has other processes do something with the catalog, and returns what they answer."""
    Catalog.create(where).close()

    def ask(what: str, **how: Any) -> Any:
        program.stdin.write(json.dumps({"do": what, "where": str(where), "how": how}) + "\n")
        program.stdin.flush()
        return json.loads(program.stdout.readline())

    return ask


def test_readers_see_whole_changes_and_writers_take_turns(order, where):
    found = order("crowd", writers=3, readers=2, rounds=6)
    assert found["finished"] == 5 and found["wrong"] == []
    count_of: dict[int, int] = {}
    for seen in found["seen"]:
        assert [version for version, _ in seen] == sorted(version for version, _ in seen)
        for version, count in seen:
            assert count % (SIZE // 2) == 0
            assert count_of.setdefault(version, count) == count
    assert len(count_of) > 3, "the readers have seen hardly anything of the writing"
    with Catalog.open(where) as catalog:
        assert catalog.image_count() == 3 * (6 * SIZE - 2 * SIZE // 2)


def test_a_writer_at_work_stops_no_reader_and_its_death_no_writer(order, where, monkeypatch):
    monkeypatch.setattr(engine, "BUSY_TIMEOUT", 0.2)
    mine = [NewImage("mine", "mine", "mine", [b"C\x00\x01"])]
    with Catalog.open(where) as catalog:
        version = catalog.version
        assert order("hold")
        began = time.monotonic()
        assert (catalog.image_count(), catalog.version) == (0, version)
        assert catalog.read_identifiers(searchable=True).codes is None
        assert time.monotonic() - began < 5
        with pytest.raises(GenretError, match="being written by another process; try again"):
            catalog.add(mine)
        assert order("kill") == -9
        monkeypatch.setattr(engine, "BUSY_TIMEOUT", 30.0)
        assert catalog.add(mine).added == 1
        assert catalog.image_count() == 1 and catalog.lookup(catalog.keys())[0].image_id == "mine"
    if isinstance(where, Path):
        with Catalog.open(where) as catalog, engine.reading(catalog._database) as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
            assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
