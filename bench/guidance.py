"""What guidance costs: a search by the language model alone beside one that the query's vector draws, by catalog."""

from __future__ import annotations

import torch

from bench.identifiers import CODEBOOK_SIZE, NUM_LEVELS
from bench.measure import Rival
from bench.models import Model, model, queries
from bench.options import Options, genret_search, tries
from bench.report import Row, Section, row, short
from genret.decode.guide import Guide, Points
from genret.decode.trie import Trie
from genret.interfaces import Additive

ALONE, GUIDED = "genret", "genret, guided"
WIDTH = 256
"""Of the code vectors."""
MOST = 10_000_000
"""Identifiers; each query has a number for each of them."""


def by_catalog(options: Options) -> Section:
    """Batch 1 and 16. The tables of a trie are made once and not measured; the queries' vectors are given."""
    net = model(options.backbones[0], options.device, options.dtype)
    books = [torch.randn(CODEBOOK_SIZE, WIDTH, device=options.device) for _ in range(NUM_LEVELS)]
    indexed = tries(options, net, [size for size in options.sizes if size <= MOST])
    points = {size: Points.of(trie, books, net.level_tokens) for size, trie in indexed.items()}
    rows: list[Row] = []
    for batch in (1, 16):
        for size, trie in indexed.items():
            rivals = [_alone(options, net, trie, batch), _guided(options, net, trie, points[size], books, batch)]
            timings = options.race(rivals, brief=True)
            found = [
                row(timing, batch, system=rival.name, backbone=net.name, images=size, beams=options.num_beams)
                for rival, timing in zip(rivals, timings, strict=True)
            ]
            found[1]["note"] = f"{found[1]['ms'] / found[0]['ms']:.2f} × {ALONE} of {short(size)}"
            rows += found
    columns = ["system", "backbone", "images", "beams", "batch", "ms", "queries_per_s", "note"]
    return Section("Guidance by catalog size", columns, rows)


def _alone(options: Options, net: Model, trie: Trie, batch: int) -> Rival:
    return Rival(ALONE, lambda number: genret_search(net, trie, queries(batch, number), options.num_beams))


def _guided(options: Options, net: Model, trie: Trie, points: Points, books: list[torch.Tensor], batch: int) -> Rival:
    def search(number: int) -> object:
        target = torch.randn(batch, WIDTH, generator=torch.Generator().manual_seed(number)).to(options.device)
        guide = Guide(Additive(target, books), points, trie, 1.0)
        return genret_search(net, trie, queries(batch, number), options.num_beams, guide)

    return Rival(GUIDED, search)
