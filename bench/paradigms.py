"""The paper's Figure 4 and the speed column of its Table 2: a comparison of the paradigms by catalog size.

AVG and GRACE by genret's search; CLIP and a small text encoder with exact search and with HNSW; BLIP over every image.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch

from bench import towers
from bench.blip import Matcher
from bench.floor import Run
from bench.measure import Rival, free_bytes
from bench.models import Model, model, queries
from bench.options import Options, genret_search, say, tries
from bench.report import Row, Section, find, number, row, short

PAPER = {"AVG": 16.8, "CLIP": 4.32, "BLIP": 0.00007}
"""Queries per second over 0.3M images (Table 2)."""
PAPER_SIZE = 300_000
BATCHES = (1, 16)
GPU_BATCHES = (1, 16, 256)
HNSW_LARGEST = 300_000
"""Number of images; building a larger graph takes long. `--large`: ten times as many."""
GRACE_LAYERS = 24
GRACE_SHAPE = {"hidden_size": 2048, "intermediate_size": 5504, "num_attention_heads": 16, "num_key_value_heads": 16,
               "head_dim": 128}  # fmt: skip
"""The language model of OpenFlamingo-3B, MPT-1B: 24 layers of width 2048. Its cross-attention layers and image encoder
are left out, which favours GRACE."""
SLICE = (1, 3)
"""Numbers of layers to time if the whole takes too long; the full time is extrapolated."""


def paradigms(options: Options, large: bool) -> Section:
    sizes = sorted({size for size in options.sizes if size <= 10_000_000} | {min(PAPER_SIZE, options.sizes[-1])})
    rows: list[Row] = []
    rows += list(_generative(options, sizes))
    rows += list(_two_tower(options, sizes, HNSW_LARGEST * (10 if large else 1)))
    rows += list(_grace(options, sizes))
    rows += list(_one_tower(options, rows))
    columns = ["system", "backbone", "images", "batch", "ms", "queries_per_s", "bytes_per_image", "recall", "note"]
    return Section(
        "Paradigms side by side",
        columns,
        rows,
        [],
        {"where exact search begins to take longer than AVG": crossings(rows)},
    )


def batches(options: Options) -> tuple[int, ...]:
    return GPU_BATCHES if options.device.type == "cuda" else BATCHES


# ------------------------------------------------------------------------------------------------ who
def _generative(options: Options, sizes: list[int]) -> Iterator[Row]:
    for name in [name for name in options.backbones if not name.startswith("llama")]:
        net = model(name, options.device, options.dtype)
        indexed = tries(options, net, sizes)
        for batch in batches(options):
            say(f"AVG, {name}, batch {batch}")
            rivals = [_avg(options, net, indexed[size], size, batch) for size in sizes]
            timings = options.race(rivals, brief=True)
            for size, timing in zip(sizes, timings, strict=True):
                # the trie and the map from rows to leaves: all that a search stores per image
                held = {"bytes_per_image": indexed[size].nbytes / size}
                yield row(timing, batch, system="AVG", backbone=name, images=size, **held)


def _avg(options: Options, net: Model, trie: Any, size: int, batch: int) -> Rival:
    return Rival(
        f"AVG {short(size)}", lambda number: genret_search(net, trie, queries(batch, number), options.num_beams)
    )


def _two_tower(options: Options, sizes: list[int], hnsw_largest: int) -> Iterator[Row]:
    cell = 4 if options.dtype == torch.float32 else 2
    room = free_bytes(options.device) // 2
    held = [size for size in sizes if size * towers.WIDTH * cell <= room and size <= 10_000_000]
    say(f"vectors of {short(held[-1])} images")
    images = towers.image_vectors(held[-1], options.device, options.dtype)
    graphs: dict[int, towers.HNSW] = {}
    recall: dict[int, float] = {}
    has_faiss = find_spec("faiss") is not None
    if not has_faiss:
        say("  no HNSW: faiss-cpu is not installed")
    for size in has_faiss * ([size for size in held if size <= hnsw_largest and size >= 10_000] or held[:1]):
        say(f"  HNSW of {short(size)}")
        graphs[size] = towers.HNSW(images[:size])
        recall[size] = graphs[size].recall(images[:size], options.num_beams)
    for name in towers.ENCODERS:
        encoder = towers.TextEncoder(name, options.device, options.dtype, 1 if options.quick else None)
        for batch in batches(options):
            say(f"two towers, {name}, batch {batch}")
            entries: list[tuple[dict[str, Any], Run]] = [({"system": "text encoder alone"}, encoder.timed(batch))]
            for size in held:
                run = towers.exact(encoder, images[:size], batch, options.num_beams)
                weight = {"bytes_per_image": float(towers.WIDTH * cell)}
                entries.append(({"system": "two-tower, exact", "images": size} | weight, run))
            for size, graph in graphs.items():
                run = graph.timed(encoder, batch, options.num_beams)
                weight = {"bytes_per_image": graph.nbytes / size, "recall": recall[size]}
                entries.append(({"system": "two-tower, HNSW", "images": size} | weight, run))
            rivals = [Rival(f"{facts['system']} {short(facts.get('images', 0))}", run) for facts, run in entries]
            for (facts, _), timing in zip(entries, options.race(rivals, brief=True), strict=True):
                yield row(timing, batch, backbone=name, **facts)
    for size in sizes:
        if size not in held:
            note = f"not measured: its vectors take {size * towers.WIDTH * cell / 1e9:.0f} GB"
            yield {"system": "two-tower, exact", "images": size, "note": note}


def _grace(options: Options, sizes: list[int]) -> Iterator[Row]:
    """At the smallest and the largest catalog, batch 1, with identifiers as short as AVG's; its own were longer."""
    whole = options.device.type == "cuda"
    depths = (GRACE_LAYERS,) if whole else SLICE
    ends = sorted({sizes[0], max(size for size in sizes if size <= 1_000_000)})
    rivals = []
    for depth in depths:
        say(f"GRACE's language model, {depth} of {GRACE_LAYERS} layers")
        tiny = {"hidden_size": 64, "intermediate_size": 64, "head_dim": 4} if options.quick else {}
        shape: dict[str, Any] = (
            GRACE_SHAPE | tiny | {"num_hidden_layers": depth, "vocab_size": 512, "tie_word_embeddings": True}
        )
        net = model("llama-1b", options.device, options.dtype, **shape)
        indexed = tries(options, net, ends)
        rivals += [_avg(options, net, indexed[size], size, 1) for size in ends]
    timings = options.race(rivals, brief=True)
    for place, size in enumerate(ends):
        first = row(timings[place], system="GRACE", backbone="MPT-1B's shape", images=size)
        if not whole:
            last = timings[len(ends) + place]
            per_layer = (last.median - timings[place].median) / (SLICE[1] - SLICE[0])
            seconds = timings[place].median + (GRACE_LAYERS - SLICE[0]) * per_layer
            note = f"computed from {SLICE[0]} and {SLICE[1]} of its {GRACE_LAYERS} layers"
            first |= {"ms": 1000 * seconds, "queries_per_s": 1 / seconds, "note": note, "computed": True}
            del first["low"], first["high"], first["best"]
        yield first


def _one_tower(options: Options, rows: list[Row]) -> Iterator[Row]:
    pictures = 32 if options.device.type == "cuda" else 2
    say(f"BLIP, {pictures} pictures")
    matcher = Matcher(options.device, options.dtype, pictures, 1 if options.quick else 12)
    kinds = {"whole pair": matcher.whole(), "picture's patches kept": matcher.kept()}
    timings = options.race([Rival(name, run) for name, run in kinds.items()], brief=True)
    for (kind, _), timing in zip(kinds.items(), timings, strict=True):
        pair = timing.median / pictures
        per_pair = f"{number(1000 * pair)} ms per pair, times the images; timed with {pictures}"
        for size in (PAPER_SIZE, 1000):
            facts: Row = {"system": f"BLIP, {kind}", "images": size, "batch": 1, "computed": True}
            yield facts | {"ms": 1000 * pair * size, "queries_per_s": 1 / (pair * size), "note": per_pair}
        avg = find(rows, system="AVG", backbone=options.backbones[-1], images=PAPER_SIZE, batch=1)
        if avg:
            seconds = avg["ms"] / 1000 + options.num_beams * pair
            note = f"AVG ({options.backbones[-1]}), then BLIP over its {options.num_beams}"
            facts = {"system": f"AVG + BLIP, {kind}", "images": PAPER_SIZE, "batch": 1, "computed": True}
            yield facts | {"ms": 1000 * seconds, "queries_per_s": 1 / seconds, "note": note}


# ------------------------------------------------------------------------------------------------ what follows
def crossings(rows: list[Row]) -> list[dict[str, Any]]:
    """The catalog size from which exact two-tower search is slower than AVG, by a least-squares line through its
    times."""
    found = []
    for avg in [entry for entry in rows if entry["system"] == "AVG" and entry["images"] == PAPER_SIZE]:
        for encoder in towers.ENCODERS:
            facts = {"system": "two-tower, exact", "backbone": encoder, "batch": avg["batch"]}
            line = [entry for entry in rows if "ms" in entry and facts.items() <= entry.items()]
            sizes, times = [entry["images"] for entry in line], [entry["ms"] for entry in line]
            if len(line) < 3:
                continue
            slope, start = _line(sizes, times)
            there = (avg["ms"] - start) / slope if slope > 0 else float("inf")
            at_paper = find(line, images=PAPER_SIZE)
            found.append(
                {
                    "AVG": avg["backbone"],
                    "text encoder": encoder,
                    "batch": avg["batch"],
                    "lines cross at images": short(int(round(max(0.0, there), -4))) if slope > 0 else "never",
                    "beyond what was measured": there > max(sizes),
                    f"queries/s of AVG, in those of exact search, {short(PAPER_SIZE)}": (
                        at_paper["ms"] / avg["ms"] if at_paper else None
                    ),
                }
            )
    return found


def _line(x: list[int], y: list[float]) -> tuple[float, float]:
    """Slope and start of the straight line through the points, weighted for equal relative errors."""
    weights = torch.tensor(y, dtype=torch.float64).reciprocal()
    design = torch.stack([torch.tensor(x, dtype=torch.float64), torch.ones(len(x), dtype=torch.float64)], dim=1)
    solved = torch.linalg.lstsq(design * weights[:, None], (torch.tensor(y, dtype=torch.float64) * weights)[:, None])
    slope, start = solved.solution[:, 0].tolist()
    return slope, start
