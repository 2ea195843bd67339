"""A query's walk through the files, as docs/architecture.md records it, is what a search on a tiny run takes."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
WALK = runpy.run_path(str(ROOT / "tools" / "walk"))


def way(text: str) -> str:
    """Without what is only asked on the way, which depends on the machine here and there (which library multiplies)."""
    return re.sub(r"; asks .*|In all, .*", "", text)


def test_the_recorded_walk_is_what_a_search_takes(tiny: Any) -> None:
    def search() -> None:
        assert tiny.genret("search", WALK["QUERY"], "--run", tiny.run, "--json").code == 0

    search()  # the second time all modules are there
    now = WALK["written"](WALK["walk"](search))
    recorded = WALK["recorded"](ROOT / "docs" / "architecture.md")
    assert way(recorded) == way(now), "run: tools/walk"
    listed = re.findall(r"^\d+\. `(.+?)`", now, re.MULTILINE)
    assert listed[0] == "commands/search.py" and {"run.py", "decode/beam.py"} <= set(listed)
    assert all((ROOT / "genret" / name).is_file() for name in listed)


def test_another_way_is_another_walk(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record holds the code: a search that asks its retriever by another file's function is noticed."""
    from genret.evaluate import queries  # a file that no search enters
    from genret.search.catalog import CatalogRetriever

    inner = CatalogRetriever.search
    detour = eval(compile("lambda inner: lambda *a, **b: inner(*a, **b)", queries.__file__, "eval"))
    monkeypatch.setattr(CatalogRetriever, "search", detour(inner))
    now = WALK["written"](WALK["walk"](lambda: tiny.genret("search", WALK["QUERY"], "--run", tiny.run, "--json")))
    assert "evaluate/queries.py" in now
    assert way(now) != way(WALK["recorded"](ROOT / "docs" / "architecture.md"))


def test_what_is_entered_twice_is_said() -> None:
    entry = WALK["Entry"]
    straight = [entry("commands/search.py", "a.py", ("find",), True), entry("a.py", "b.py", ("rank",), True)]
    told = WALK["written"](straight)
    assert "3 files are on the way" in told and "No file is entered twice" in told
    back = [*straight, entry("b.py", "a.py", ("again",), True), entry("b.py", "c.py", ("size",), False)]
    told = WALK["written"](back)
    assert "3 files are on the way" in told and "- `a.py` by `b.py` (`again`)" in told and "asks `c.py`" in told
    assert "c.py" not in way(told)
