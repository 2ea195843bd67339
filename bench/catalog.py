"""Catalogs of a million images and more: `python -m bench.catalog`.

How long the identifiers take from the database into the trie, beside a bare SELECT of the same columns; and how soon a
running searcher sees images that another connection has added. Writes bench/results/catalog-<database>.json and .md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from sqlalchemy import create_engine
from transformers.utils import logging as transformers_logging

from bench import machine, report
from bench.identifiers import identifiers
from bench.measure import Cost, cost_of
from bench.models import VOKENS, model
from bench.options import say
from bench.report import RESULTS, Row, Section, bar, bars, short
from genret.catalog.codec import pack_codes
from genret.catalog.store import Catalog, NewImage
from genret.components.retrievers.generative import GenerativeRetriever
from genret.components.retrievers.live_trie import LiveTrie
from genret.components.retrievers.trie_cache import TrieCache
from genret.recipe.schema import SearchOptions, TrainOptions
from genret.search.image_trie import ImageTrie
from genret.search.resources import Resources

SELECT = "SELECT image_key, identifier FROM identifiers WHERE searchable"
ADDED = 10_000
BLOCK = 100_000
"""Identifiers packed at a time, so that filling a catalog takes little memory."""
CPU = torch.device("cpu")


def parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(prog="python -m bench.catalog", description=__doc__.split("\n")[0])
    parse.add_argument("--sizes", type=lambda text: [int(word) for word in text.split(",")], default=[1_000_000])
    parse.add_argument("--large", action="store_true", help="10 million images, too")
    parse.add_argument(
        "--url", help="an empty database, e.g. postgresql+psycopg://user@host/name; its tables are dropped"
    )
    parse.add_argument("--threads", type=int, default=os.cpu_count())
    parse.add_argument("--rounds", type=int, default=5)
    parse.add_argument("--added", type=int, default=ADDED, help="images added to a running searcher's catalog")
    parse.add_argument("--folder", type=Path, help="where SQLite's files lie meanwhile (default: a temporary folder)")
    parse.add_argument("--out", type=Path, help="JSON file (default: bench/results/catalog-<database>.json)")
    return parse


def main(words: list[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    torch.set_num_threads(arguments.threads)
    transformers_logging.disable_progress_bar()
    database = arguments.url.partition(":")[0].partition("+")[0] if arguments.url else "sqlite"
    path = arguments.out or RESULTS / f"catalog-{database}.json"
    about = machine.facts(CPU) | {"database": database}
    sizes = sorted({*arguments.sizes, *([10_000_000] if arguments.large else [])})
    parts = []
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            where = arguments.url or str(Path(folder) / "catalog.sqlite")
            parts.append(measured(where, size, arguments.added, arguments.rounds, Path(folder)))
    section = Section(
        f"Catalogs in {database}",
        ["system", "images", "seconds", "to_select", "peak_mb", "mb", "note"],
        [row for part in parts for row in part.rows],
        [bar for part in parts for bar in part.bars],
        {name: found for part in parts for name, found in part.checks.items()},
    )
    known = report.as_json(section, about, {"rounds": arguments.rounds, "added": arguments.added})
    report.save(path, "catalog", known)
    text = report.page({"catalog": known})
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    say(f"wrote {path} and .md")


def measured(where: str, size: int, added: int, rounds: int, folder: Path) -> Section:
    """Fills a catalog, and times loads of it and changes to it in turns."""
    say(f"filling a catalog with {short(size)} images")
    every = packed(size + rounds * (added + 1))
    began = time.perf_counter()
    with Catalog.create(where, overwrite=True) as catalog:
        catalog.add(new_image(number, next(every)) for number in range(size))
    filling = time.perf_counter() - began
    backbone = model("t5-tiny", CPU).backbone
    reader, writer = Catalog.open(where), Catalog.open(where)
    running = searcher(reader, backbone)
    with running.opened() as (_, before):
        held = before.nbytes

    selects, loads, writes, sights, singles = [], list[Cost](), [], [], []
    last = size
    for _ in range(rounds):
        say("  SELECT, load, add, see")
        selects.append(seconds_of(lambda: bare_select(where)))
        loads.append(cost_of(lambda: opened(searcher(reader, backbone))))
        new = [new_image(last + i, next(every)) for i in range(added)]
        writes.append(seconds_of(lambda: writer.add(new)))  # noqa: B023
        sights.append(seconds_of(lambda: opened(running)))
        last += added
        one = [new_image(last, next(every))]
        singles.append(seconds_of(lambda: writer.add(one)) + seconds_of(lambda: opened(running)))  # noqa: B023
        last += 1
    with running.opened() as (_, after):
        seen = len(after.leaf_images.images)
    cached = from_cache(running, folder)
    reader.close()
    writer.close()

    select, load = statistics.median(selects), statistics.median(cost.seconds for cost in loads)
    write, sight = statistics.median(writes), statistics.median(sights)
    objects = max(cost.peak_objects for cost in loads) / size
    shared: Row = {"images": size}
    many = f"{added:,} images"
    rows: list[Row] = [
        shared | {"system": "filling the catalog", "seconds": filling, "note": "Catalog.add, one transaction"},
        shared | {"system": "bare SELECT", "seconds": select, "to_select": 1.0, "note": "fetched and forgotten"},
        shared | {
            "system": "load into the trie", "seconds": load, "to_select": load / select, "mb": held / 1e6,
            "peak_mb": max(cost.peak_bytes for cost in loads) / 1e6,
        },
        shared | {"system": "the same, from its cache on disk", "seconds": cached, "to_select": cached / select},
        shared | {"system": f"add {many}", "seconds": write, "note": "one transaction of another connection"},
        shared | {"system": f"see {many}", "seconds": sight, "note": "the running searcher's next look"},
        shared | {"system": "add and see one image", "seconds": statistics.median(singles)},
    ]  # fmt: skip
    results = bars(
        bar(f"load into the trie against a bare SELECT, {short(size)}", load / select, 2.5),
        bar(f"Python objects alive while loading, for each of {short(size)} rows", objects, 0.05, unit="objects"),
        bar(f"{many} more visible after their commit, against a full load of {short(size)}", sight / load, 0.1),
        bar(f"{many} more written and visible, against a full load of {short(size)}", (write + sight) / load, 0.1),
    )
    checks = {f"images that the running searcher sees of {last:,}": f"{seen:,}"}
    return Section("", [], rows, results, checks)


def packed(count: int) -> Iterator[bytes]:
    """Identifiers as the catalog keeps them."""
    for part in identifiers(count).split(BLOCK):
        yield from pack_codes(part)


def new_image(number: int, identifier: bytes) -> NewImage:
    return NewImage(f"image-{number:09d}", f"pictures/{number:09d}.jpg", f"{number:064x}", (identifier,))


def searcher(catalog: Catalog, backbone: Any) -> GenerativeRetriever:
    """A retriever whose pictures and vectors nobody asks for, and that keeps no cache on disk."""
    scheme = SimpleNamespace(vokens=VOKENS)
    parts: dict[str, Any] = {"thumbnails": None, "encoder": None, "reranker": None, "identifier": scheme}
    options: dict[str, Any] = {"search": SearchOptions(), "train": TrainOptions(), "device": CPU}
    retriever = GenerativeRetriever()
    retriever.connect(Resources(catalog=catalog, backbone=backbone, **parts, **options))
    return retriever


def opened(retriever: GenerativeRetriever) -> None:
    """What stands between a change and the next search that knows of it."""
    with retriever.opened():
        pass


def from_cache(running: GenerativeRetriever, folder: Path) -> float:
    """Seconds to load the trie from the cache on disk."""
    LiveTrie(running.tokenized, CPU, TrieCache(folder / "trie", "bench")).at(running.catalog)

    def load() -> ImageTrie | None:
        with running.catalog.snapshot() as view:
            return LiveTrie(running.tokenized, CPU, TrieCache(folder / "trie", "bench")).at(view)

    return seconds_of(load)


def bare_select(where: str) -> None:
    """The driver's own cursor, its rows fetched and thrown away."""
    engine = create_engine(where if "://" in where else f"sqlite:///{where}")
    connection = engine.raw_connection()
    try:
        cursor: Any = connection.cursor()
        cursor.execute(SELECT)
        deque(cursor, maxlen=0)
        cursor.close()
    finally:
        connection.close()
        engine.dispose()


def seconds_of(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
