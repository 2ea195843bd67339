"""Whole searches, by catalog, beams, batch and model: genret, transformers' `generate`, and the lower bound."""

from __future__ import annotations

from typing import Any

import torch

from bench.floor import Run, own_calls, transformers_calls
from bench.generate import LARGEST, DictTrie, disagreements, timed
from bench.identifiers import identifiers, tokens_of
from bench.measure import Rival
from bench.models import Model, model, queries
from bench.options import Options, genret_search, say, tries
from bench.report import Bar, Row, Section, bar, bars, find, ratio, row, short
from genret.decode.trie import Trie

GENRET, GENERATE = "genret", "transformers generate"
OWN_FLOOR, THEIR_FLOOR = "floor: genret's calls", "floor: transformers' calls"
MOST = 10_000_000
"""Up to this many images no search may take longer than with the fewest; larger catalogs are compared with this one."""
COLUMNS = ["system", "backbone", "images", "beams", "batch", "ms", "queries_per_s", "to_floor", "note"]


def by_catalog(options: Options) -> Section:
    """Does a search cost more over more images? Batch 1 and 16."""
    net = model(options.backbones[0], options.device, options.dtype)
    indexed = tries(options, net)
    small = [size for size in options.sizes if size <= LARGEST]
    dicts = {size: _dict_trie(options, net, size) for size in sorted({*small[:1], *small[-1:]})}
    found: dict[str, Any] = {
        short(size): disagreements(net, indexed[size], trie, queries(4, 0), options.num_beams)
        for size, trie in dicts.items()
        if options.dtype == torch.float32
    }
    if not found:
        found = {"not compared": "sums of 8 bits tell too few identifiers apart"}
    rows: list[Row] = []
    for batch in (1, 16):
        rows += _race(options, net, indexed, dicts, batch, options.num_beams)
    return Section(
        "Whole searches by catalog size",
        COLUMNS,
        rows,
        _bars(rows, options, small[-1] if small else 0),
        {"identifiers found by one of genret and generate alone, no tie explaining it": found},
    )


def by_shape(options: Options) -> Section:
    """Beams, batches and models, over one catalog."""
    size = options.shape_size
    rows: list[Row] = []
    for name in options.backbones:
        net = model(name, options.device, options.dtype)
        indexed = tries(options, net, [size])
        shapes = [(options.num_beams, batch) for batch in options.batches]
        if name == options.backbones[0]:
            shapes += [(num_beams, 1) for num_beams in options.beams]
        on_gpu = options.device.type == "cuda"
        dicts = {min(size, LARGEST): _dict_trie(options, net, min(size, LARGEST))} if on_gpu else {}
        for num_beams, batch in dict.fromkeys(shapes):
            rows += _race(options, net, indexed, dicts, batch, num_beams, brief=True)
        del net, indexed, dicts
    results = []
    if options.device.type == "cuda":
        worst = max((entry["to_floor"] for entry in rows if entry["system"] == GENRET), default=None)
        pairs = [ratio(rows, entry, _like(entry, GENRET, size)) for entry in _facts(rows, GENERATE)]
        quickest = min((pair for pair in pairs if pair), default=None)
        results = bars(
            bar("GPU: the slowest shape against its floor", worst, 1.15),
            bar("GPU: `generate` against genret, the least", quickest, 10, at_least=True),
        )
    return Section(f"Whole searches over {short(size)} images", COLUMNS, rows, results)


def _race(
    options: Options,
    net: Model,
    indexed: dict[int, Trie],
    dicts: dict[int, DictTrie],
    batch: int,
    num_beams: int,
    brief: bool = False,
) -> list[Row]:
    """All catalogs, both lower bounds and `generate`, interleaved."""
    say(f"{net.name}, batch {batch}, {num_beams} beams")
    entries: list[tuple[str, int | None, Rival]] = []
    for size, trie in indexed.items():
        run = _searching(net, trie, batch, num_beams)
        entries.append((GENRET, size, Rival(f"{GENRET} {short(size)}", run)))
    for name, calls in ((OWN_FLOOR, own_calls), (THEIR_FLOOR, transformers_calls)):
        entries.append((name, None, Rival(name, calls(net, batch, num_beams))))
    for size, dict_trie in dicts.items():
        run = timed(net, dict_trie, batch, num_beams)
        entries.append((GENERATE, size, Rival(f"{GENERATE} {short(size)}", run)))
    timings = options.race([rival for _, _, rival in entries], brief)
    rows = [
        row(timing, batch, system=system, backbone=net.name, images=size, beams=num_beams)
        for (system, size, _), timing in zip(entries, timings, strict=True)
    ]
    floor = min(entry["ms"] for entry in rows if entry["system"] in (OWN_FLOOR, THEIR_FLOOR))
    for entry in rows:
        entry["to_floor"] = entry["ms"] / floor
        if "floor" in entry["system"] and entry["ms"] == floor:
            entry["note"] = "the floor"
    return rows


def _searching(net: Model, trie: Trie, batch: int, num_beams: int) -> Run:
    return lambda number: genret_search(net, trie, queries(batch, number), num_beams)


def _dict_trie(options: Options, net: Model, size: int) -> DictTrie:
    say(f"  dicts of {short(size)} identifiers")
    return DictTrie(tokens_of(identifiers(size, options.distribution), net.level_tokens))


def _bars(rows: list[Row], options: Options, largest_dict: int) -> list[Bar]:
    smallest, largest = (
        options.sizes[0],
        max((size for size in options.sizes if size <= MOST), default=options.sizes[0]),
    )
    many = [size for size in options.sizes if size > largest]
    results = []
    for batch in (1, 16):
        at = {size: {"system": GENRET, "images": size, "batch": batch} for size in options.sizes}
        in_words = f"batch {batch}"
        generate = {"system": GENERATE, "images": largest_dict, "batch": batch}
        over_floor = find(rows, **at[largest])
        results += bars(
            bar(f"{short(largest)} against {short(smallest)} images, {in_words}",
                ratio(rows, at[largest], at[smallest]), 1.10),
            bar(f"{short(largest)} images against the floor, {in_words}",
                over_floor["to_floor"] if over_floor else None, 1.15),
            bar(f"`generate` against genret, {short(largest_dict)} images, {in_words}",
                ratio(rows, generate, generate | {"system": GENRET}),
                10 if options.device.type == "cuda" else 3, at_least=True),
            *(bar(f"{short(size)} against {short(largest)} images, {in_words}",
                  ratio(rows, at[size], at[largest]), 1.15) for size in many),
        )  # fmt: skip
    return results


def _facts(rows: list[Row], system: str) -> list[Row]:
    keys = ("system", "backbone", "images", "batch", "beams")
    return [{key: entry[key] for key in keys} for entry in rows if entry["system"] == system]


def _like(entry: Row, system: str, size: int) -> Row:
    return entry | {"system": system, "images": size}
