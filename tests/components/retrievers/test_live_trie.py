"""A running searcher sees what others do to the catalog; its cache is used where it is true, and nowhere else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from genret.api import Restriction
from genret.catalog.store import Catalog, Snapshot
from genret.components.retrievers import live_trie
from genret.components.retrievers.live_trie import LiveTrie
from genret.components.retrievers.trie_cache import TrieCache
from tests.search.fakes import Writer, generative, image, in_memory, on_disk, two_tower

CPU = torch.device("cpu")
IMAGES = [image(f"i{n}", [(n % 3, n % 2), (n % 2, n % 3, n % 4)], (n + 1, 1)) for n in range(12)]


def content(index: Any) -> Any:
    if index is None:
        return None
    tokens = index.trie.tokens_of(torch.arange(index.trie.num_leaves)).tolist()
    return [[row for row in tokens if row], index.leaf_images.starts.tolist(), index.leaf_images.images.tolist()]


def trimmed(found: Any) -> Any:
    """Without the padding that depends on the longest identifier there ever was."""
    return found and [[[t for t in row if t >= 0] for row in found[0]], *found[1:]]


@settings(deadline=None, max_examples=15)
@given(st.data())
def test_following_changes_ends_where_loading_everything_does(data: Any) -> None:
    codes = st.lists(st.integers(0, 2), min_size=1, max_size=3)
    names = st.sampled_from([f"i{n}" for n in range(8)])
    catalog, dense = in_memory(), two_tower(in_memory())
    dense.catalog = catalog
    retriever = generative(catalog)
    picture = 0
    for _ in range(data.draw(st.integers(1, 5))):
        for _ in range(data.draw(st.integers(0, 3))):  # several changes between two looks
            if data.draw(st.booleans()):
                catalog.remove(data.draw(st.lists(names, max_size=3)))
            else:
                picture += 1
                added = [
                    image(name, data.draw(st.lists(codes, min_size=1, max_size=2)), (n + 1, 1), f"{name} {picture}")
                    for n, name in enumerate(data.draw(st.lists(names, max_size=4, unique=True)))
                ]
                hidden = data.draw(st.booleans())
                catalog.add([row._replace(searchable=not hidden) for row in added])
        with retriever.opened() as (view, followed):
            fresh = LiveTrie(retriever.tokenized, CPU).at(view)
            assert trimmed(content(followed)) == trimmed(content(fresh))
        with dense.opened() as (view, vectors):
            anew = two_tower(catalog).index_at(view)
            assert vectors.keys.tolist() == anew.keys.tolist() and vectors.features.equal(anew.features)


def test_what_another_process_adds_and_removes_is_seen_at_once(tmp_path: Path) -> None:
    catalog = on_disk(tmp_path, IMAGES)
    searchers = generative(catalog), two_tower(catalog)
    before = {row.image_id for row in IMAGES}
    for searcher in searchers:
        assert {hit.image_id for hit in searcher.search(["1 1"], 50)[0].hits} == before
    code = (
        "import sys, torch; from genret.catalog.store import Catalog, NewImage\n"
        "def image(name, codes): return NewImage(name, name, 'new', [b'C' + codes], torch.ones(2))\n"
        "with Catalog.open(sys.argv[1]) as catalog:\n"
        "    catalog.remove(['i3'])\n"
        "    catalog.add([image('new', bytes([0, 2, 0, 2])), image('i4', bytes([0, 0, 0, 0, 0, 3]))])\n"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code, str(catalog.path)], check=True, cwd=root)
    for searcher in searchers:
        found = searcher.search(["1 1"], 50)[0].hits
        assert {hit.image_id for hit in found} == before - {"i3"} | {"new"}
    names = {hit.image_id: hit.identifier for hit in searchers[0].search(["x"], 50)[0].hits}
    assert names["i4"] == ["c0_0", "c1_0", "c2_3"]


def test_a_search_sees_one_version_whatever_happens_meanwhile(tmp_path: Path) -> None:
    with on_disk(tmp_path, IMAGES) as catalog, Catalog.open(tmp_path / "catalog.sqlite") as other:
        writer = Writer()
        retriever = generative(catalog, writer)
        undisturbed = retriever.search(["x"], 50)[0].hits
        writer.during = lambda: other.remove([row.image_id for row in IMAGES[1:]]) and None
        assert retriever.search(["x"], 50, restrict=Restriction(without=["i0"]))[0].hits == [
            hit._replace(rank=rank) for rank, hit in enumerate((h for h in undisturbed if h.image_id != "i0"), 1)
        ]
        writer.during = lambda: None
        assert [hit.image_id for hit in retriever.search(["x"], 50)[0].hits] == ["i0"]


# ------------------------------------------------------------------------------------------------------------- cache
class Opened:
    """A searcher as a new process would make it."""

    def __init__(self, folder: Path, key: str = "key", spell: Any = None):
        self.catalog = Catalog.open(folder / "catalog.sqlite")
        self.retriever = generative(self.catalog)
        self.retriever._live = LiveTrie(spell or self.retriever.tokenized, CPU, TrieCache(folder / "trie", key))

    def look(self) -> Any:
        with self.retriever.opened() as (view, index):
            found = trimmed(content(index))
            assert found == trimmed(content(LiveTrie(self.retriever.tokenized, CPU).at(view)))
            return found


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """How often all rows were read by what keeps a cache; any catalog is large enough for one."""
    made: list[bool] = []

    def built(self: Any, view: Snapshot, old: Any = LiveTrie._built) -> Any:
        if self._cache is not None:
            made.append(True)
        return old(self, view)

    monkeypatch.setattr(live_trie, "LEAST_CACHED", 1)
    monkeypatch.setattr(LiveTrie, "_built", built)
    yield made


def test_the_second_process_reads_the_cache_and_follows_from_there(tmp_path: Path, loads: list[bool]) -> None:
    with on_disk(tmp_path, IMAGES) as catalog:
        Opened(tmp_path).look()
        Opened(tmp_path).look()
        assert len(loads) == 1
        (entry,) = (tmp_path / "trie").iterdir()
        assert entry.name == f"key-{catalog.version}"
        catalog.remove(["i1", "i2", "i5"])
        catalog.add([image("new", [(2, 2, 2), (0,)])])
        second = Opened(tmp_path)
        second.look()
        assert len(loads) == 1, "what changed is all that is read"
        catalog.remove(["i6"])
        second.look()
        (entry,) = (tmp_path / "trie").iterdir()
        assert entry.name == f"key-{catalog.version}", "it is written anew where much has changed"
        Opened(tmp_path).look()
        assert len(loads) == 1


def test_a_small_trie_is_made_anew_as_quickly(tmp_path: Path) -> None:
    on_disk(tmp_path, IMAGES)
    Opened(tmp_path).look()
    assert not (tmp_path / "trie").exists()


@pytest.mark.parametrize("name", ["trie.safetensors", "images.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut", "noise", "other"])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, loads: list[bool], name: str, damage: str) -> None:
    on_disk(tmp_path, IMAGES)
    Opened(tmp_path).look()
    (entry,) = (tmp_path / "trie").iterdir()
    file = entry / name
    whole = file.read_bytes()
    other = entry / ("trie.safetensors" if name.startswith("images") else "images.safetensors")
    content = {"missing": None, "cut": whole[: len(whole) // 2], "noise": whole[::-1], "other": other.read_bytes()}[
        damage
    ]
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    Opened(tmp_path).look()
    assert len(loads) == 2


def test_a_cache_of_other_models_or_another_catalog_is_not_used(tmp_path: Path, loads: list[bool]) -> None:
    on_disk(tmp_path, IMAGES)
    Opened(tmp_path).look()
    Opened(tmp_path, key="other").look()
    assert len(loads) == 2 and [entry.name.partition("-")[0] for entry in (tmp_path / "trie").iterdir()] == ["other"]

    (tmp_path / "elsewhere").mkdir()  # another catalog of the same version by accident
    on_disk(tmp_path / "elsewhere", IMAGES[:5])
    shutil.copytree(tmp_path / "trie", tmp_path / "elsewhere" / "trie")
    Opened(tmp_path / "elsewhere", key="other").look()
    assert len(loads) == 3


def test_a_cache_that_contradicts_the_catalog_is_not_used(tmp_path: Path, loads: list[bool]) -> None:
    catalog = on_disk(tmp_path, IMAGES)
    opened = Opened(tmp_path)
    opened.look()
    (entry,) = (tmp_path / "trie").iterdir()
    found = TrieCache(tmp_path / "trie", "key").load()
    assert found is not None and found.held is not None
    shutil.rmtree(entry)
    renamed = found.held._replace(
        leaf_images=found.held.leaf_images._replace(images=np.roll(found.held.leaf_images.images, 3))
    )
    TrieCache(tmp_path / "trie", "key").save(found._replace(held=renamed))
    Opened(tmp_path).look()
    assert len(loads) == 2 and catalog.image_count() == len(IMAGES)


def test_a_folder_that_cannot_be_written_does_without(tmp_path: Path, loads: list[bool]) -> None:
    on_disk(tmp_path, IMAGES)
    (tmp_path / "trie").write_text("a file where a folder should be")
    Opened(tmp_path).look()
    Opened(tmp_path).look()
    assert len(loads) == 2


def test_an_emptied_catalog_is_followed_and_filled_again(tmp_path: Path) -> None:
    with on_disk(tmp_path, IMAGES[:2]) as catalog:
        retriever = generative(catalog)
        assert len(retriever.search(["x"])[0].hits) == 2
        catalog.remove(["i0", "i1"])
        assert retriever.search(["x"], restrict=Restriction(where=""))[0].hits == []
        catalog.add(IMAGES[3:4])
        assert [hit.image_id for hit in retriever.search(["x"])[0].hits] == ["i3"]


def test_the_cache_removes_its_own_entries_alone(tmp_path: Path, loads: list[bool]) -> None:
    version = on_disk(tmp_path, IMAGES).version
    Opened(tmp_path).look()
    foreign = tmp_path / "trie" / "vacation-2024"
    foreign.mkdir()
    (foreign / "beach.jpg").write_bytes(b"mine")
    Opened(tmp_path, key="other").look()
    assert {entry.name for entry in (tmp_path / "trie").iterdir()} == {f"other-{version}", "vacation-2024"}

    shutil.move(tmp_path / "trie", tmp_path / "elsewhere")
    (tmp_path / "trie").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    Opened(tmp_path, key="third").look()
    assert {entry.name for entry in (tmp_path / "elsewhere").iterdir()} >= {f"other-{version}", "vacation-2024"}
    assert (tmp_path / "elsewhere" / "vacation-2024" / "beach.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize("number", [-2, 10**6])
@pytest.mark.parametrize(
    ("file", "table"),
    [
        *(("trie", f"{depth}.{name}") for depth in (0, 1) for name in ("offsets", "symbols", "columns")),
        ("trie", "leaf_of_row"),
        ("images", "starts"),
    ],
)
def test_indices_out_of_range_are_no_cache(
    tmp_path: Path, loads: list[bool], file: str, table: str, number: int
) -> None:
    """A file that is well formed and points outside of its tables."""
    on_disk(tmp_path, IMAGES)
    Opened(tmp_path).look()
    (entry,) = (tmp_path / "trie").iterdir()
    path = entry / f"{file}.safetensors"
    with safe_open(path, framework="pt") as stored:
        about, tables = stored.metadata(), {name: stored.get_tensor(name).clone() for name in stored.keys()}  # noqa: SIM118
    if not len(tables[table]):  # the rows of a kept trie are not stored
        tables[table] = torch.zeros(1, dtype=tables[table].dtype)
    limits = torch.iinfo(tables[table].dtype)
    tables[table][len(tables[table]) // 2] = number if limits.min <= number <= limits.max else limits.max
    save_file(tables, path, metadata=about)
    cache = TrieCache(tmp_path / "trie", "key", 1000)
    assert cache.load() is None
    Opened(tmp_path).look()
