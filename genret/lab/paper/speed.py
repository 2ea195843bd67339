"""Queries per second of a table's runs: over their own images, and over catalogs filled up with synthetic ones.

The whole search is timed: tokenization, the text encoder if used, and the lookup of results (not in filled catalogs).
Results are stored after every size, and not measured again for the same runs on the same machine.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from genret.api import Ui
from genret.errors import GenretError
from genret.kit.device import device_of
from genret.kit.files import write_json
from genret.lab.paper.paper import PaperTable
from genret.lab.paper.reproduce import Line
from genret.lab.speed.speed import alternate
from genret.lab.sweep.sweep import RowResult
from genret.plugin.registry import Registries
from genret.run import Run
from genret.search.catalog import CatalogRetriever
from genret.settings import Settings
from genret.shell.environment import describe
from genret.train.artifacts import content_key

BATCH = 1
"""Batch size in queries."""
K = 10
"""Number of images retrieved; generative runs search with their row's beams."""
OWN = "own"
"""The unit for a run's own images."""


class Speeds(NamedTuple):
    """By unit (`own`, or a catalog size) and row. An entry has figures or a `note` why there are none."""

    machine: dict[str, Any]
    units: dict[str, dict[str, dict[str, Any]]]

    def of(self, line: Line) -> list[dict[str, Any]]:
        """One row's entries."""
        return [unit[line.row.label] for unit in self.units.values() if line.row.label in unit]

    def as_json(self) -> dict[str, Any]:
        return {"batch": BATCH, "machine": self.machine}

    def headings(self) -> list[str]:
        made = [f"queries/s, {int(unit):,} images" for unit in self.units if unit != OWN]
        return ["queries/s, own images", *made, "paper queries/s"]

    def cells(self, line: Line) -> list[str]:
        entries = (unit.get(line.row.label, {}).get("queries_per_s") for unit in self.units.values())
        return [*map(shown, entries), shown(line.of.paper_speed)]

    def notes(self, table: PaperTable) -> list[str]:
        own = sorted({entry["images"] for entry in self.units.get(OWN, {}).values() if "images" in entry})
        entries = [entry for unit in self.units.values() for entry in unit.values()]
        told = dict.fromkeys(f"{entry['images']:,} images: {entry['note']}" for entry in entries if "note" in entry)
        have = f"Own images: {', '.join(f'{count:,}' for count in own)}. " if own else ""
        return [
            f"Speed: medians of whole searches in turns, {BATCH} query at a time, text encoder counted, on "
            f"{machine_text(self.machine)}. {have}Larger catalogs are the runs' own with made-up images added, first "
            "stage only.",
            f"The paper's speed: {table.paper_speed_on}.",
            *told,
        ]


class Searcher(NamedTuple):
    line: Line
    retriever: CatalogRetriever
    queries: list[str]

    def batch(self, number: int) -> list[str]:
        at = [(number * BATCH + i) % len(self.queries) for i in range(BATCH)]
        return [self.queries[place] for place in at]


def measure(
    table: PaperTable,
    lines: Sequence[Line],
    results: Sequence[RowResult],
    sizes: Sequence[int],
    out: Path,
    registries: Registries,
    settings: Settings,
    ui: Ui,
) -> Speeds:
    """Times the missing entries; runs that failed or were skipped have no speed."""
    machine = _machine(settings)
    there = [(line, result.outcomes[0].run) for line, result in zip(lines, results, strict=True) if result.outcomes]
    key = content_key(
        "speed", BATCH, K, machine, [[line.row.label, run.name, line.row.num_beams] for line, run in there]
    )
    file = out / f"{table.file_name}.speed.json"
    units = _read(file, key)
    wanted = [OWN] * (table.shows == "speed") + [str(size) for size in sorted(set(sizes))]
    if there and any(unit not in units for unit in wanted):
        searchers = [_open(line, run, registries, settings) for line, run in there]
        for unit in wanted:
            if unit not in units:
                ui.note(f"speed: {'own images' if unit == OWN else f'{int(unit):,} images'}")
                units[unit] = _own(searchers) if unit == OWN else _filled(searchers, int(unit))
                write_json(file, {"key": key, "machine": machine, "batch": BATCH, "units": units})
        for searcher in searchers:
            searcher.retriever.catalog.close()
    return Speeds(machine, {unit: units[unit] for unit in wanted if unit in units})


def shown(speed: float | None) -> str:
    """Three significant digits."""
    if speed is None:
        return "–"
    return f"{speed:,.0f}" if speed >= 1000 else np.format_float_positional(float(f"{speed:.3g}"), trim="-")


def machine_text(about: dict[str, Any]) -> str:
    where = "" if about["device"] == "cpu" else f"{about['device']}; "
    return f"{where}{about['processor']}, {about['threads']} of {about['cores']} threads, torch {about['torch']}"


def _machine(settings: Settings) -> dict[str, Any]:
    about = describe(device_of(settings), 0)
    versions = {name: about["packages"].get(name) for name in ("genret", "torch", "transformers")}
    return {name: about[name] for name in ("device", "processor", "cores", "threads")} | versions


def _read(file: Path, key: str) -> dict[str, dict[str, dict[str, Any]]]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return dict(found["units"]) if found["key"] == key else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _open(line: Line, run: Path, registries: Registries, settings: Settings) -> Searcher:
    opened = Run(run, registries, settings)
    retriever, split = opened.retriever, opened.dataset.test_split
    queries = list(dict.fromkeys(retriever.catalog.captions(split).texts))
    if not queries:
        raise GenretError(f"{run} has no captions to search by, so its speed cannot be measured")
    random.Random(0).shuffle(queries)
    return Searcher(line, retriever, list(islice(queries, 1000)))


def _own(searchers: Sequence[Searcher]) -> dict[str, dict[str, Any]]:
    """Everything that `genret search` does, rerankers included."""

    def whole(one: Searcher) -> Callable[[int], Any]:
        return lambda number: one.retriever.search(one.batch(number), k=K, num_beams=one.line.row.num_beams)

    timings = alternate([whole(one) for one in searchers], searchers[0].retriever.device)
    return {
        one.line.row.label: {"images": one.retriever.catalog.image_count(searchable=True), "made_up": 0, "batch": BATCH}
        | timing.as_json(BATCH)
        for one, timing in zip(searchers, timings, strict=True)
    }


def _filled(searchers: Sequence[Searcher], size: int) -> dict[str, dict[str, Any]]:
    """First stages over filled catalogs; the cost of rerankers does not depend on catalog size."""
    found: dict[str, dict[str, Any]] = {}
    rivals: list[tuple[str, Callable[[int], Any]]] = []
    for one in searchers:
        label = one.line.row.label
        if one.retriever.reranker is not None:
            continue
        try:
            with one.retriever.catalog.snapshot() as snapshot:
                made = one.retriever.enlarged(snapshot, size)
        except GenretError as error:
            found[label] = {"images": size, "batch": BATCH, "note": f"{one.line.of.name} is not measured: {error}"}
            continue
        own = one.retriever.catalog.image_count(searchable=True)
        found[label] = {
            "images": made.num_images,
            "made_up": made.num_images - own,
            "batch": BATCH,
            "bytes_per_image": round(made.num_bytes / made.num_images, 1),
        }
        width = one.line.row.num_beams
        rivals.append((label, lambda n, one=one, made=made, width=width: made.search(one.batch(n), width, K)))  # type: ignore[misc]
    timings = alternate([rival for _, rival in rivals], searchers[0].retriever.device)
    for (label, _), timing in zip(rivals, timings, strict=True):
        found[label] |= timing.as_json(BATCH)
    return found
