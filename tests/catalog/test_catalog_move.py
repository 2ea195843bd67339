"""A run's catalog in another database, found there, with all that it held."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from sqlalchemy import select
from typer.testing import CliRunner

from genret.catalog.codec import pack_codes
from genret.catalog.engine import reading
from genret.catalog.place import has_catalog, place_of
from genret.catalog.schema import metadata
from genret.catalog.store import Catalog, NewImage
from genret.cli import build
from genret.cli.state import State
from genret.errors import GenretError, UsageError
from genret.lab import move
from genret.lab.move import copy_catalog
from genret.plugin.loading import load_plugins
from genret.settings import Settings


def fill(catalog: Catalog) -> None:
    catalog.add(
        NewImage(f"i{i}", f"/{i}", str(i), pack_codes(torch.tensor([[i, 70000]])), torch.ones(4), {"n": i, "é": None},
                 "test" if i % 2 else None, i % 3 > 0, ("one", "two"))
        for i in range(700)
    )  # fmt: skip
    catalog.remove(["i3", "i699"])


def contents(catalog: Catalog) -> dict[str, list[tuple]]:
    with reading(catalog._database) as connection:
        return {t.name: sorted(map(repr, map(tuple, connection.execute(select(t)))))
                for t in metadata.sorted_tables}  # fmt: skip


@pytest.mark.parametrize("target", ["postgresql", "sqlite"])
def test_a_copy_is_the_same_catalog(catalog, where, new_place, target):
    fill(catalog)
    version = catalog.version
    there = new_place(target)
    assert copy_catalog(where, there) == 698
    with Catalog.open(there, run_id="run-1") as copy:
        assert contents(copy) == contents(catalog) and copy.state == catalog.state
        copy.add([NewImage("new", "new", "new", pack_codes(torch.tensor([[1]])))])
        assert copy.keys_of(["new"]).tolist() == [701] and copy.changes_since(version).images.tolist() == [701]
    with pytest.raises(GenretError, match="is not empty"):
        copy_catalog(where, there)


def test_a_file_is_found_from_every_folder_and_never_the_catalogs_own(tmp_path, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Catalog.create(run / "catalog.sqlite", "run-1").close()
    for nowhere in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(UsageError, match="in memory, which ends with this command; name a file"):
            move.move_catalog(run, nowhere)
    with pytest.raises(UsageError, match="is where the catalog is already"):
        move.move_catalog(run, "sqlite:///run/catalog.sqlite")
    assert place_of(run) == run / "catalog.sqlite"
    for target, file in (("sqlite:///a b.sqlite", "a b.sqlite"), ("sqlite:///~/c.sqlite", "c.sqlite")):
        move.move_catalog(run, target)
        monkeypatch.chdir(run)
        Catalog.open(place_of(run), "run-1").close()
        monkeypatch.chdir(tmp_path)
        assert (tmp_path / file).is_file() and not Path("~").exists()


@pytest.mark.parametrize("killed_at", ["write_text", "replace"])
def test_an_interrupted_move_goes_on(tmp_path, new_place, monkeypatch, killed_at):
    with Catalog.create(tmp_path / "catalog.sqlite", "run-1") as catalog:
        fill(catalog)
        before = contents(catalog)
    url = new_place("postgresql")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*((move, "write_text") if killed_at == "write_text" else (Path, "replace")), killed)
        with pytest.raises(KeyboardInterrupt):
            move.move_catalog(tmp_path, url)
    assert (tmp_path / "catalog.sqlite").exists()
    assert move.move_catalog(tmp_path, url) == 698
    assert not (tmp_path / "catalog.sqlite").exists() and (tmp_path / "catalog.moved.sqlite").exists()
    with Catalog.open(place_of(tmp_path), run_id="run-1") as there:
        assert contents(there) == before


def test_what_is_somebody_elses_is_not_taken_for_an_interrupted_move(tmp_path, where):
    with Catalog.create(tmp_path / "catalog.sqlite", "run-1") as catalog, Catalog.create(where, "run-1") as other:
        fill(catalog)
        fill(other)
    with pytest.raises(GenretError, match="is not empty"):
        move.move_catalog(tmp_path, str(where) if "://" in str(where) else f"sqlite:///{where}")
    assert place_of(tmp_path) == tmp_path / "catalog.sqlite"


def test_a_pointer_that_is_a_pipe_is_not_read(tmp_path):
    (tmp_path / "catalog.url").touch()
    with pytest.raises(GenretError, match=r"catalog\.url \(empty, or no regular file\)"):
        place_of(tmp_path)
    (tmp_path / "catalog.url").unlink()
    os.mkfifo(tmp_path / "catalog.url")
    with pytest.raises(GenretError, match=r"catalog\.url \(empty, or no regular file\)"):
        place_of(tmp_path)


def test_the_command_moves_it_and_the_run_finds_it(tmp_path, new_place):
    run = tmp_path / "runs" / "mine-1"
    run.mkdir(parents=True)
    (run / "summary.json").write_text("{}")
    with Catalog.create(run / "catalog.sqlite", "run-1") as catalog:
        fill(catalog)
        before = contents(catalog)
    settings = Settings(home=tmp_path)
    app = build(State(settings, load_plugins([], settings), False))

    def genret(*words: str) -> SimpleNamespace:
        found = CliRunner().invoke(app, ["catalog", *words])
        return SimpleNamespace(code=found.exit_code, out=found.stdout, error=found.stderr)

    assert "698 pictures, 466 of them searched" in genret().out
    assert genret("--to", "nowhere").code == 2
    url = new_place("postgresql")
    said = genret("--to", url, "--json")
    assert said.code == 0, said
    assert json.loads(said.out)["images"] == 698 and json.loads(said.out)["catalog"].startswith("postgresql")
    assert place_of(run) == url and has_catalog(run)
    assert sorted(path.name for path in run.iterdir() if path.name.startswith("catalog")) == [
        "catalog.moved.sqlite",
        "catalog.url",
    ]
    with Catalog.open(place_of(run), run_id="run-1") as catalog:
        assert contents(catalog) == before
    assert json.loads(genret("--json").out)["searchable"] == 466
