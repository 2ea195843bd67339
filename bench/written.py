"""What long identifiers cost: a search whose language model writes all symbols beside one that writes the first few."""

from __future__ import annotations

import torch

from bench.measure import Rival
from bench.models import Model, model, queries
from bench.options import Options, say
from bench.report import Row, Section, row, short
from genret.decode.beam import beam_search
from genret.decode.guide import Guide, Points
from genret.decode.trie import Trie
from genret.interfaces import Additive, Vokens

NUM_LEVELS, CODEBOOK_SIZE, WIDTH = 32, 256, 256
"""Of residual quantization as recipes/scale/flickr8k-large.yaml has it."""
WRITTEN = 6
MOST = 100_000


def by_catalog(options: Options) -> Section:
    """Batch 1 and 16, both guided. The tables of a trie are made once and not measured."""
    vokens = Vokens((CODEBOOK_SIZE,) * NUM_LEVELS)
    net = model(options.backbones[0], options.device, options.dtype, vokens=vokens)
    books = [torch.randn(CODEBOOK_SIZE, WIDTH, device=options.device) for _ in range(NUM_LEVELS)]
    sizes = [size for size in options.sizes if size <= MOST]
    rows: list[Row] = []
    for size in sizes:
        trie = _trie(net, size)
        points = Points.of(trie, books, net.level_tokens)
        for batch in (1, 16):
            rivals = [_search(options, net, trie, points, books, batch, written) for written in (None, WRITTEN)]
            timings = options.race(rivals, brief=True)
            found = [
                row(timing, batch, system=rival.name, backbone=net.name, images=size, beams=options.num_beams)
                for rival, timing in zip(rivals, timings, strict=True)
            ]
            found[1]["note"] = f"{found[1]['ms'] / found[0]['ms']:.2f} × all {NUM_LEVELS} of {short(size)}"
            rows += found
    columns = ["system", "backbone", "images", "beams", "batch", "ms", "queries_per_s", "note"]
    return Section("Long identifiers, written whole or in part", columns, rows)


def _trie(net: Model, size: int) -> Trie:
    say(f"  trie of {short(size)} identifiers of {NUM_LEVELS} symbols")
    codes = torch.randint(CODEBOOK_SIZE, (size, NUM_LEVELS), generator=torch.Generator().manual_seed(0))
    first = torch.tensor([int(tokens[0]) for tokens in net.level_tokens])
    return Trie.build(codes + first).to(net.device)


def _search(
    options: Options, net: Model, trie: Trie, points: Points, books: list[torch.Tensor], batch: int, written: int | None
) -> Rival:
    def search(number: int) -> object:
        target = torch.randn(batch, WIDTH, generator=torch.Generator().manual_seed(number)).to(options.device)
        guide = Guide(Additive(target, books), points, trie, 1.0)
        texts, levels = queries(batch, number), net.level_tokens
        return beam_search(
            net.backbone, texts, trie, options.num_beams, "level", levels, guide=guide, written_levels=written
        )

    return Rival(f"genret, {'all' if written is None else written} of {NUM_LEVELS} levels written", search)
