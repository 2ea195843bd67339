"""A catalog that follows folders: all that happens is counted rightly, and nothing is encoded twice."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import genret
from genret.api import IndexReport
from genret.components.encoders.paired import PairedEncoder
from genret.pictures import plan
from genret.pictures.seen import FILE as SEEN

COLOURS = ("red", "green", "blue", "yellow", "black", "white", "pink", "brown")


@pytest.fixture(autouse=True)
def environment(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("HOME", tiny.home), ("DEVICE", "cpu"), ("NUM_THREADS", 1)):
        monkeypatch.setenv(f"GENRET_{name}", str(value))


@pytest.fixture
def folder(tiny: Any, tmp_path: Path) -> Path:
    """Twelve pictures in three folders, some minutes old."""
    for number in range(12):
        draw(tiny, tmp_path / "mine" / f"f{number % 3}" / f"{number}.png", number)
    return tmp_path / "mine"


def draw(tiny: Any, file: Path, number: int, age: int = 600) -> Path:
    shape = ("cross", "circle", "line", "square")[number % 4]
    tiny.draw(file, COLOURS[number % 8], shape, COLOURS[(number // 8 + number + 1) % 8])
    os.utime(file, (time.time() - age,) * 2)
    return file


@pytest.fixture
def opened(run: Path) -> Iterator[genret.Run]:
    with genret.load(run) as one:
        yield one


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counts, inner = list[int](), PairedEncoder.image_features
    monkeypatch.setattr(
        PairedEncoder,
        "image_features",
        lambda self, images, view=0: counts.append(len(images)) or inner(self, images, view),
    )
    return counts


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read for their content alone."""
    names, inner = list[str](), plan.hashlib.file_digest
    monkeypatch.setattr(plan.hashlib, "file_digest", lambda file, kind: names.append(file.name) or inner(file, kind))
    return names


def identifiers(run: genret.Run) -> dict[str, Any]:
    """By image, its key and codes."""
    added = [*run.catalog.added_images()]
    keys = run.catalog.keys_of(added)
    rows = run.catalog.identifiers_of(keys)
    codes = {key: rows.codes[rows.image_keys == key].tolist() for key in keys.tolist()}  # type: ignore[index]
    return {name: (key, codes[key]) for name, key in zip(added, keys.tolist(), strict=True)}


def counts(**said: int) -> IndexReport:
    return IndexReport(**{"added": 0, "removed": 0, "skipped": [], **said})  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ nothing changed
def test_files_that_have_not_changed_are_not_read(opened, folder, encoded, hashed) -> None:
    assert opened.index(folder) == counts(added=12) and sum(encoded) == 12 and hashed == []
    again = genret.load(opened.folder)
    assert again.index(folder) == counts(unchanged=12) and hashed == []
    assert "retriever" not in vars(again) and sum(encoded) == 12, "no model is loaded for it"
    touched = folder / "f0" / "0.png"
    os.utime(touched)
    assert opened.index(folder) == counts(unchanged=12) and hashed == [str(touched)], "by its content"


WITHOUT = """
import sys
sys.modules |= dict.fromkeys(("torch", "transformers", "tokenizers", "timm", "sentence_transformers"))  # these fail now
from genret.cli import main
main(sys.argv[1:])
"""


def test_without_news_neither_torch_nor_transformers_is_needed(opened, tiny, folder) -> None:
    """A whole program that could import neither."""
    opened.index(folder)
    (folder / "f0" / "0.png").rename(folder / "moved.png")
    (folder / "f0" / "3.png").unlink()
    command = [sys.executable, "-c", WITHOUT, "index", "--run", opened.folder, folder, "--json"]
    for said in (counts(moved=1, unchanged=10, missing=1), counts(unchanged=11, missing=1)):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == said._asdict(), done.stderr
    draw(tiny, folder / "new.png", 13)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "torch" in done.stderr, "news needs them"


def test_what_was_seen_may_be_lost(opened, folder, encoded, hashed) -> None:
    opened.index(folder)
    for damage in (lambda file: file.unlink(), lambda file: file.write_bytes(b"no database" * 999)):
        damage(opened.folder / SEEN)
        hashed.clear()
        assert opened.index(folder) == counts(unchanged=12) and len(hashed) == 12
    opened.index(folder)
    hashed.clear()
    assert opened.index(folder) == counts(unchanged=12) and hashed == []
    assert sum(encoded) == 12


def test_a_change_of_the_same_size_within_the_clock_is_seen(opened, tiny, folder) -> None:
    """A file that was written a moment before is read again: its time may not tell its next change."""
    file = draw(tiny, folder / "new.png", 1, age=0)
    opened.index(folder)
    data, info = file.read_bytes(), file.stat()
    other = bytearray(draw(tiny, folder / "other.png", 2).read_bytes())
    (folder / "other.png").unlink()
    assert data != other
    file.write_bytes(
        (bytes(other) + data)[: len(data)] if len(other) >= len(data) else bytes(other).ljust(len(data), b"\0")
    )
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert file.stat().st_size == len(data)
    assert opened.index(folder).updated == 1


# ------------------------------------------------------------------------------------------------ what moves
def test_folders_files_and_copies_that_move_keep_their_identifiers(opened, folder, encoded) -> None:
    opened.index(folder)
    before = identifiers(opened)
    (folder / "f0").rename(folder / "away")
    (folder / "f1" / "1.png").rename(folder / "f1" / "one.png")
    shutil.copyfile(folder / "f2" / "2.png", folder / "copy.png")
    assert opened.index(folder) == counts(added=1, moved=5, unchanged=7) and sum(encoded) == 13
    after = identifiers(opened)
    for number in (0, 3, 6, 9):
        assert after[str(folder / "away" / f"{number}.png")] == before[str(folder / "f0" / f"{number}.png")]
    assert after[str(folder / "f1" / "one.png")] == before[str(folder / "f1" / "1.png")]
    assert len(after) == 13


def test_files_that_change_places(opened, folder, encoded) -> None:
    opened.index(folder)
    before = identifiers(opened)
    names = [folder / "f0" / f"{number}.png" for number in (0, 3, 6)]
    contents = [name.read_bytes() for name in names]
    for name, content in zip(names, (contents[2], *contents[:2]), strict=True):  # in a circle
        name.write_bytes(content)
    assert opened.index(folder) == counts(moved=3, unchanged=9) and sum(encoded) == 12
    after = identifiers(opened)
    for new, old in zip(names, (names[2], *names[:2]), strict=True):
        assert after[str(new)] == before[str(old)]
    searched = {hit.image_id for hit in opened.search("a red cross", k=50).hits}
    assert {str(name) for name in names} < searched


def test_a_file_in_the_place_of_another(opened, folder, encoded) -> None:
    """The picture that was there is gone, and counted."""
    opened.index(folder)
    before = identifiers(opened)
    old, new = folder / "f0" / "0.png", folder / "f0" / "3.png"
    old.replace(new)
    assert opened.index(folder) == counts(moved=1, removed=1, unchanged=10) and sum(encoded) == 12
    after = identifiers(opened)
    assert after[str(new)] == before[str(old)] and len(after) == 11
    assert len(opened.search("a red cross", k=50).hits) == 8 + 11


def test_a_move_is_made_whole_or_not_at_all(opened, folder, monkeypatch) -> None:
    opened.index(folder)
    before = identifiers(opened)
    (folder / "f0").rename(folder / "away")
    inner = plan.os.path.lexists  # any call of the sync after the first renaming would do

    class Torn(Exception):
        pass

    from genret.catalog import store

    real, calls = store.update, []

    def tearing(table):
        calls.append(1)
        if len(calls) == 6:
            raise Torn
        return real(table)

    monkeypatch.setattr(store, "update", tearing)
    with pytest.raises(Torn):
        opened.index(folder)
    monkeypatch.setattr(store, "update", real)
    assert identifiers(opened) == before and inner(folder)
    assert opened.index(folder) == counts(moved=4, unchanged=8)


# ------------------------------------------------------------------------------------------------ everything at once
def test_everything_at_once_is_counted_rightly(opened, tiny, tmp_path, encoded) -> None:
    """Drawn by chance, against a model that knows what was done."""
    chance = random.Random(3)
    folder = tmp_path / "many"
    for number in range(32):
        draw(tiny, folder / f"d{number % 5}" / f"{number}.png", number)
    contents = {path: path.read_bytes() for path in folder.rglob("*.png")}
    distinct = len(set(contents.values()))
    assert distinct == 32
    opened.index(folder)
    before = identifiers(opened)
    paths = sorted(contents)
    chance.shuffle(paths)
    renamed, changed, removed = paths[:6], paths[6:11], paths[11:15]
    for path in renamed:
        (folder / "new").mkdir(exist_ok=True)
        path.rename(folder / "new" / f"r-{path.name}")
    for number, path in enumerate(changed):
        path.write_bytes(draw(tiny, tmp_path / "other.png", 32 + number).read_bytes())
    for path in removed:
        path.unlink()
    draw(tiny, folder / "added.png", 40)
    encoded.clear()
    done = opened.index(folder, prune=True)
    assert done == counts(added=1, updated=5, moved=6, removed=4, unchanged=17) and sum(encoded) == 6
    after = identifiers(opened)
    assert len(after) == 32 - 4 + 1
    for path in renamed:
        assert after[str(folder / "new" / f"r-{path.name}")] == before[str(path)]
    assert opened.index(folder) == counts(unchanged=29) and sum(encoded) == 6


def test_what_is_gone_is_said_and_pruned_when_asked_for(opened, tiny, run, folder) -> None:
    opened.index(folder)
    shutil.rmtree(folder / "f0")
    assert opened.index(folder) == counts(unchanged=8, missing=4)
    said = tiny.genret("index", "--run", run, folder)
    assert said.code == 0 and "4 pictures of these folders are gone; --prune forgets them." in " ".join(
        said.err.split()
    )
    assert opened.index(folder, prune=True) == counts(unchanged=8, removed=4)


def test_an_interrupted_index_goes_on(opened, folder, monkeypatch, encoded) -> None:
    inner = type(opened.catalog).add

    def torn(self, rows):
        inner(self, rows)
        raise KeyboardInterrupt

    monkeypatch.setattr("genret.search.catalog.BATCH", 5)
    monkeypatch.setattr("genret.search.catalog.WRITTEN", 1)
    monkeypatch.setattr(type(opened.catalog), "add", torn)
    with pytest.raises(KeyboardInterrupt):
        opened.index(folder)
    monkeypatch.setattr(type(opened.catalog), "add", inner)
    assert opened.index(folder) == counts(added=7, unchanged=5)
    assert sum(encoded) <= 12 + 5, "at most the batch that was encoded while the first was written"


def test_damaged_files_are_tried_again_and_named(opened, folder) -> None:
    opened.index(folder)
    file = folder / "f0" / "0.png"
    good = file.read_bytes()
    file.write_bytes(good[:40])
    for _ in range(2):
        report = opened.index(folder)
        assert report.unchanged == 11 and [one.path for one in report.skipped] == [str(file)]
    assert str(file) in opened.catalog.added_images(), "the picture that was there stays"
    file.write_bytes(good)
    assert opened.index(folder) == counts(unchanged=12)


# ------------------------------------------------------------------------------------------------ roots and patterns
def test_several_roots_and_patterns(opened, tiny, run, folder) -> None:
    (folder / "f1" / ".genretignore").write_text("4.png\n")
    words = ("index", "--run", run, folder / "f0", folder / "f1", "--ignore", "9.png", "--json")
    assert tiny.genret(*words).document["added"] == 6
    assert {Path(name).stem for name in opened.catalog.added_images()} == {"0", "3", "6", "1", "7", "10"}
    assert opened.index(folder / "f2") == counts(added=4)


def test_facts_of_files_are_filtered_and_sorted_by(opened, tiny, run, folder) -> None:
    opened.index(folder)
    found = opened.search("a red cross", k=50, where="folder = f1 and width = 32").hits
    assert {Path(hit.image_id).stem for hit in found} == {"1", "4", "7", "10"}
    dates = {"1": "2001", "4": "2004", "7": "1999", "10": "2003"}
    for stem, year in dates.items():
        os.utime(folder / "f1" / f"{stem}.png", (time.mktime((int(year), 6, 1, 0, 0, 0, 0, 0, 0)),) * 2)
    opened.remove([str(folder)])
    opened.index(folder)
    words = ("search", "a red cross", "--run", run, "-k", 50, "--where", "folder = f1", "--sort", "date", "--json")
    assert [Path(hit["image_id"]).stem for hit in tiny.genret(*words).document["hits"]] == ["4", "10", "1", "7"]


def test_a_folder_is_watched(run, tiny, folder) -> None:
    pytest.importorskip("watchfiles")
    from genret.pictures.watch import changes

    stop, seen = threading.Event(), list[IndexReport]()
    with genret.load(run) as one:
        one.index(folder)
    ready = threading.Event()

    def follow() -> None:
        with genret.load(run) as mine:
            ready.set()
            for _ in changes([folder], stop):
                seen.append(mine.index(folder))

    thread = threading.Thread(target=follow)
    thread.start()
    ready.wait(10)
    time.sleep(1)  # the watcher has no sign that it has begun
    (folder / "notes.txt").write_text("no picture")
    draw(tiny, folder / "f0" / "new.png", 20)
    (folder / "f1").rename(folder / "elsewhere")
    end = time.monotonic() + 30
    while time.monotonic() < end and sum(one.moved for one in seen) < 4:
        time.sleep(0.1)
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    assert sum(one.added for one in seen) == 1 and sum(one.moved for one in seen) == 4


# ------------------------------------------------------------------------------------------------ copies
def test_equal_files_and_pictures_that_look_the_same(opened, tiny, run, folder) -> None:
    from PIL import Image

    shutil.copyfile(folder / "f0" / "0.png", folder / "f1" / "same.png")
    with Image.open(folder / "f2" / "2.png") as image:
        image.resize((64, 64), Image.Resampling.NEAREST).save(folder / "f2" / "larger.jpg", quality=90)
    opened.index(folder)
    found = tiny.genret("duplicates", "--run", run, "--json").document
    assert [{Path(one["image_id"]).name for one in rows} for rows in found["exact"]] == [{"0.png", "same.png"}]
    near = [({Path(one["image_id"]).name for one in pair["images"]}, pair["similarity"]) for pair in found["near"]]
    assert [pair for pair, _ in near] == [{"2.png", "larger.jpg"}] and 0.97 <= near[0][1] <= 1
    said = tiny.genret("duplicates", "--run", run).out
    assert len(said.splitlines()) == 2 and said.startswith("equal: ") and "alike (" in said
    strict = tiny.genret("duplicates", "--run", run, "--near", 1, "--json").document
    assert strict["near"] == [] and json.dumps(strict["exact"]) == json.dumps(found["exact"])


@pytest.mark.slow
def test_the_benchmark_counts_and_measures(tiny, run, tmp_path) -> None:
    from PIL import Image

    from bench.index import measure

    chance = random.Random(0)
    for number in range(12):
        (tmp_path / "source").mkdir(exist_ok=True)
        noise = Image.frombytes("RGB", (64, 48), chance.randbytes(64 * 48 * 3))
        noise.save(tmp_path / "source" / f"{number}.jpg")
    found = measure(run, tmp_path / "source", tmp_path / "pictures", 60)
    assert found["right"] and found["encoded"] == 15 and found["seconds"]["without news"] < found["seconds"]["first"]
