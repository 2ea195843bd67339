"""The search without the model's cost, compared with STATIC; and both indexes' build time and memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import static
from bench.identifiers import CODEBOOK_SIZE, NUM_LEVELS, identifiers
from bench.measure import Rival, cost_of
from bench.models import RandomScores
from bench.options import Options, say
from bench.report import Bar, Row, Section, bar, bars, find, ratio, row, short
from genret.decode.beam import beam_search
from genret.decode.trie import Trie

GENRET, STATIC = "genret", "STATIC, re-stated"
BATCH, BEAMS = 2, 70
"""The setting in which STATIC was published."""
DRAWS = 4
"""Number of sets of random scores; rounds cycle through them."""
SMALLEST, LARGEST = 100_000, 10_000_000
PUBLISHED_MS = {100_000: 2.8, 1_000_000: 3.2, 10_000_000: 4.6}
"""Time of STATIC's own torch code on two cores, with its random model."""
PUBLISHED_SECONDS, PUBLISHED_MB = 4.2, 217
"""Build time and memory of 10M identifiers, its own code, two cores."""
BUILDS = 3


def compared(options: Options) -> list[int]:
    """The catalogs for both; STATIC's dense levels need more identifiers than beams."""
    return [size for size in options.sizes if SMALLEST <= size <= LARGEST] or [min(options.sizes[-1], LARGEST)]


# ------------------------------------------------------------------------------------------------ searching
def search_logic(options: Options) -> Section:
    """All levels of a search, 2 queries with 70 beams, without model calls."""
    drawn, alike = (
        [RandomScores(BATCH, BEAMS, options.device, seed, same) for seed in range(DRAWS)] for same in (False, True)
    )
    rows: list[Row] = []
    differing = {}
    say(f"search logic alone, batch {BATCH}, {BEAMS} beams")
    rivals, names = [], []
    for size in compared(options):
        codes = identifiers(size, options.distribution)
        trie = Trie.build(codes).to(options.device)
        index = static.build(static.sort_rows(codes.numpy(), CODEBOOK_SIZE), CODEBOOK_SIZE).to(options.device)
        del codes
        ours, theirs = _ours(trie, drawn), _theirs(index, drawn)
        checked = _ours(trie, alike), _theirs(index, alike)
        differing[short(size)] = sum(_differ(trie, *(search(number) for search in checked)) for number in range(DRAWS))
        rivals += [Rival(f"{GENRET} {short(size)}", ours), Rival(f"{STATIC} {short(size)}", theirs)]
        names += [(GENRET, size), (STATIC, size)]
    timings = options.race(rivals)
    for (name, size), timing in zip(names, timings, strict=True):
        entry = row(timing, BATCH, system=name, images=size, beams=BEAMS)
        if name == STATIC and size in PUBLISHED_MS and options.device.type == "cpu":
            entry["note"] = f"its authors' code, two cores: {PUBLISHED_MS[size]} ms"
        rows.append(entry)
    results = bars(
        *(
            bar(f"search logic against STATIC's, {short(size)}",
                ratio(rows, {"system": GENRET, "images": size}, {"system": STATIC, "images": size}), 1.0)
            for size in compared(options)
        )
    )  # fmt: skip
    columns = ["system", "images", "beams", "batch", "ms", "note"]
    checks = {"beams that differ, no tie explaining it": differing}
    return Section("Search logic alone", columns, rows, results, checks)


def _ours(trie: Trie, drawn: list[RandomScores]) -> Callable[[int], Any]:
    levels: list[Tensor | None] = [torch.arange(CODEBOOK_SIZE, device=trie.device)] * NUM_LEVELS
    return lambda number: beam_search(drawn[number % DRAWS], [""] * BATCH, trie, BEAMS, "level", levels)


def _theirs(index: static.StaticIndex, drawn: list[RandomScores]) -> Callable[[int], Any]:
    def run(number: int) -> Any:
        logits = drawn[number % DRAWS].logits
        return static.search(index, lambda depth, width: logits[depth, :, :width], BEAMS)

    return run


def _differ(trie: Trie, ours: Any, theirs: tuple[Tensor, Tensor]) -> int:
    """Beams whose identifiers differ although their scores are not tied with their neighbours'."""
    codes, scores = theirs
    found = trie.tokens_of(ours.leaves.flatten()).view(*ours.leaves.shape, -1)
    same = (found == codes).all(-1)
    gaps = torch.nn.functional.pad(scores.diff(dim=1).abs(), (1, 1), value=torch.inf)
    tied = torch.minimum(gaps[:, 1:], gaps[:, :-1]) < 1e-4
    off = (ours.scores - scores).abs() > 1e-3
    return int((off | ~same & ~tied).sum())


# ------------------------------------------------------------------------------------------------ building
def building(options: Options) -> Section:
    """Builds an index from unsorted rows of codes: time, memory kept, peak memory."""
    rows: list[Row] = []
    for size in [size for size in options.sizes if size >= compared(options)[0]]:
        say(f"building {short(size)}, {BUILDS} times each")
        codes = identifiers(size, options.distribution)
        works: dict[str, Callable[[], Any]] = {GENRET: lambda codes=codes: Trie.build(codes)}  # type: ignore[misc]
        if size <= LARGEST:
            works[STATIC] = lambda codes=codes: _static_steps(codes.numpy())  # type: ignore[misc]
        costs: dict[str, list[Any]] = {name: [] for name in works}
        for _ in range(BUILDS if size <= LARGEST else 1):
            for name, work in works.items():
                costs[name].append(_measured(work))
        rows += [_build_row(name, size, taken) | {"given_mb": codes.nbytes / 1e6} for name, taken in costs.items()]
        del codes, works
    columns = ["system", "images", "seconds", "mb", "bytes_per_image", "peak_mb", "note"]
    return Section("Building and keeping the trie", columns, rows, _build_bars(rows, options))


def _static_steps(codes: np.ndarray) -> static.StaticIndex:
    return static.build(static.sort_rows(codes, CODEBOOK_SIZE), CODEBOOK_SIZE)


def _measured(work: Callable[[], Any]) -> tuple[float, int, int]:
    cost = cost_of(work)
    return cost.seconds, kept_bytes(cost.result), cost.peak_bytes


def kept_bytes(index: Trie | static.StaticIndex) -> int:
    """Memory of the tables for a search; genret's map from rows to leaves counts to the images' rows."""
    if isinstance(index, static.StaticIndex):
        return index.nbytes
    for depth in range(index.depth):
        index.wide(depth)
    return index.nbytes - index.leaf_of_row.nbytes


def _build_row(name: str, size: int, taken: list[tuple[float, int, int]]) -> Row:
    seconds = sorted(cost[0] for cost in taken)
    kept = taken[0][1]
    entry: Row = {
        "system": name,
        "images": size,
        "seconds": seconds[len(seconds) // 2],
        "all_seconds": seconds,
        "mb": kept / 1e6,
        "bytes_per_image": kept / size,
        "peak_mb": max(cost[2] for cost in taken) / 1e6,
    }
    if name == STATIC and size == LARGEST:
        entry["note"] = f"its authors' code, two cores: {PUBLISHED_SECONDS} s and {PUBLISHED_MB} MB"
    return entry


def _build_bars(rows: list[Row], options: Options) -> list[Bar]:
    built = [row["images"] for row in rows]
    size = max((size for size in built if size <= LARGEST), default=built[0])
    ours, theirs = {"system": GENRET, "images": size}, {"system": STATIC, "images": size}
    mine = find(rows, **ours)
    assert mine is not None
    at_full = size == LARGEST
    many = [row for row in rows if row["images"] > LARGEST]
    return bars(
        bar(f"build against STATIC's, {short(size)}", ratio(rows, ours, theirs, "seconds"), 1.0),
        bar("build of 10M", mine["seconds"] if at_full else None, PUBLISHED_SECONDS, unit="s"),
        bar("memory of 10M", mine["mb"] if at_full else None, PUBLISHED_MB, unit="MB"),
        bar(f"memory, {short(size)}", mine["bytes_per_image"], 24, unit="bytes/identifier"),
        *(bar(f"memory, {short(row['images'])}", row["bytes_per_image"], 24, unit="bytes/identifier") for row in many),
        *(
            bar(
                f"rows and what building takes, {short(row['images'])}",
                (row["given_mb"] + row["peak_mb"]) / 1000,
                24,
                unit="GB",
            )
            for row in many
        ),
    )
