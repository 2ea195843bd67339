"""The cost of guidance, by catalog size: a search by the language model alone, and one guided by the query's vector.
And its gain for long identifiers: the language model generates all codes, or only the first few.
"""

from __future__ import annotations

import time

import torch

from bench.identifiers import CODEBOOK_SIZE, NUM_LEVELS
from bench.measure import Rival
from bench.models import Model, model, queries
from bench.options import Options, genret_search, say, tries
from bench.report import Row, Section, row, short
from genret.api import Vokens
from genret.components.retrievers.guidance.guide import FlatGuide
from genret.components.retrievers.guidance.means import Points
from genret.decode.trie import Trie

ALONE, GUIDED = "genret", "genret, guided"
WIDTH = 256
"""Of the code vectors."""
BATCHES = (1, 16)
COLUMNS = ["system", "backbone", "images", "beams", "batch", "ms", "queries_per_s", "note"]

LONG, LONG_CODEBOOK, WRITTEN = 32, 256, 6
"""Levels, codes per level and generated levels, as in recipes/scale/flickr8k-large.yaml."""
MOST_LONG = 100_000


def by_catalog(options: Options) -> Section:
    """Building the trie's tables is not part of a search's time, but noted; the queries' vectors are given."""
    net = model(options.backbones[0], options.device, options.dtype)
    indexed = tries(options, net)
    books = _books(options, NUM_LEVELS, CODEBOOK_SIZE)
    points, notes = {}, {}
    for size, trie in indexed.items():
        start = time.perf_counter()
        points[size] = Points(trie, books, net.level_tokens)
        seconds = time.perf_counter() - start
        whole, own = (trie.nbytes - trie.leaf_of_row.nbytes) / size, points[size].nbytes / size
        notes[size] = f"; bytes an identifier: trie {whole:.1f}, guidance {own:.1f}, made in {seconds:.3g} s"
        say(f"  tables of guidance for {short(size)}{notes[size]}")
    rows: list[Row] = []
    for batch in BATCHES:
        for size, trie in indexed.items():
            alone = _alone(options, net, trie, batch)
            guided = _guided(options, GUIDED, net, trie, points[size], batch)
            rows += _compared(options, net, size, batch, alone, guided, notes[size])
    return Section("Guidance by catalog size", COLUMNS, rows)


def by_written_levels(options: Options) -> Section:
    """Both guided, as above."""
    net = model(options.backbones[0], options.device, options.dtype, vokens=Vokens((LONG_CODEBOOK,) * LONG))
    books = _books(options, LONG, LONG_CODEBOOK)
    rows: list[Row] = []
    for size in (size for size in options.sizes if size <= MOST_LONG):
        say(f"  trie of {short(size)} identifiers of {LONG} symbols")
        trie = _long_identifiers(net, size)
        points = Points(trie, books, net.level_tokens)
        for batch in BATCHES:
            name = "genret, {} of " + f"{LONG} levels written"
            whole = _guided(options, name.format("all"), net, trie, points, batch)
            part = _guided(options, name.format(WRITTEN), net, trie, points, batch, WRITTEN)
            rows += _compared(options, net, size, batch, whole, part)
    return Section("Long identifiers, written whole or in part", COLUMNS, rows)


def _compared(
    options: Options, net: Model, size: int, batch: int, first: Rival, second: Rival, note: str = ""
) -> list[Row]:
    """Adds to the second row its ratio to the first."""
    found = [
        row(timing, batch, system=rival.name, backbone=net.name, images=size, beams=options.num_beams)
        for rival, timing in zip((first, second), options.race([first, second], brief=True), strict=True)
    ]
    found[1]["note"] = f"{found[1]['ms'] / found[0]['ms']:.2f} × {first.name} of {short(size)}{note}"
    return found


def _books(options: Options, num_levels: int, codebook_size: int) -> list[torch.Tensor]:
    return [torch.randn(codebook_size, WIDTH, device=options.device) for _ in range(num_levels)]


def _long_identifiers(net: Model, size: int) -> Trie:
    codes = torch.randint(LONG_CODEBOOK, (size, LONG), generator=torch.Generator().manual_seed(0))
    return Trie.build(codes + torch.stack([tokens[0] for tokens in net.level_tokens]).cpu()).to(net.device)


def _alone(options: Options, net: Model, trie: Trie, batch: int) -> Rival:
    return Rival(ALONE, lambda number: genret_search(net, trie, queries(batch, number), options.num_beams))


def _guided(
    options: Options,
    name: str,
    net: Model,
    trie: Trie,
    points: Points,
    batch: int,
    written_levels: int | None = None,
) -> Rival:
    def search(number: int) -> object:
        target = torch.randn(batch, WIDTH, generator=torch.Generator().manual_seed(number)).to(options.device)
        guide = FlatGuide(target, points, 1.0)
        return genret_search(net, trie, queries(batch, number), options.num_beams, guide, written_levels)

    return Rival(name, search)
