"""Constrained decoding and its baselines, in one run: `python -m bench.decoding`.

Writes bench/results/decoding-<device>.json, .md and .svg, and prints the tables. docs/performance.md explains them;
`python -m bench.page` inserts them there.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from bench import guidance, logic, machine, paradigms, plot, report, search
from bench.models import SHAPES
from bench.options import Options, say
from bench.report import RESULTS, Section

SIZES = [1_000, 10_000, 100_000, 1_000_000, 10_000_000]
LARGE = 100_000_000


def parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(prog="python -m bench.decoding", description=__doc__.split("\n")[0])
    parse.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parse.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch and FAISS (default: all cores)")
    parse.add_argument("--sizes", type=_numbers, default=SIZES, help="catalogs, in identifiers, e.g. 1000,1000000")
    parse.add_argument("--large", action="store_true", help="100 million identifiers, too, and larger HNSW graphs")
    parse.add_argument("--backbones", type=_words, help=f"of {', '.join(SHAPES)}; the first is the main one")
    parse.add_argument("--beams", type=_numbers, default=[1, 5, 10, 20, 50, 100])
    parse.add_argument("--batches", type=_numbers, help="queries at a time")
    parse.add_argument("--num-beams", type=int, default=20, help="where beams are not the question")
    parse.add_argument("--rounds", type=int, default=25, help="most repeats of each comparison")
    parse.add_argument("--seconds", type=float, default=60, help="after which a comparison begins no further round")
    parse.add_argument("--codes", choices=["uniform", "skewed"], default="uniform", help="how identifiers are drawn")
    parse.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of all models and vectors")
    parse.add_argument("--only", type=_words, help=f"some sections: {', '.join(sections(False))}")
    parse.add_argument("--quick", action="store_true", help="tiny models and catalogs: does it run at all?")
    parse.add_argument("--out", type=Path, help="JSON file (default: bench/results/decoding-<device>.json)")
    return parse


def sections(large: bool) -> dict[str, Callable[[Options], Section]]:
    return {
        "logic": logic.search_logic,
        "building": logic.building,
        "sizes": search.by_catalog,
        "shapes": search.by_shape,
        "guidance": guidance.by_catalog,
        "written": guidance.by_written_levels,
        "paradigms": lambda options: paradigms.paradigms(options, large),
    }


def options_of(arguments: argparse.Namespace) -> Options:
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    backbones = arguments.backbones or ["t5-small", "t5-base", *(["llama-1b"] if on_gpu else [])]
    batches = arguments.batches or ([1, 4, 16, 64, 256] if on_gpu else [1, 4, 16])
    sizes = sorted({*arguments.sizes, *([LARGE] if arguments.large else [])})
    beams, rounds, seconds = arguments.beams, arguments.rounds, arguments.seconds
    if arguments.quick:
        backbones, sizes, beams, batches, rounds, seconds = ["t5-tiny"], [1_000, 10_000], [5], [1, 2], 3, 2.0
    return Options(
        device, sizes, backbones, beams, batches, arguments.num_beams, rounds, seconds, arguments.codes,
        getattr(torch, arguments.dtype), arguments.quick,
    )  # fmt: skip


def main(words: list[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    torch.set_num_threads(arguments.threads)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    options = options_of(arguments)
    named = f"decoding-{options.device.type}" + ("-quick" if arguments.quick else "")
    path = arguments.out or RESULTS / f"{named}.json"
    chosen = sections(arguments.large)
    for name in arguments.only or chosen:
        if name not in chosen:
            raise SystemExit(f"there is no section {name}; take some of {', '.join(chosen)}")
        say(f"== {name}")
        about, began = machine.facts(options.device), time.perf_counter()
        section = report.as_json(chosen[name](options), about, _shown(options))
        section["measured"]["took_seconds"] = round(time.perf_counter() - began)
        report.save(path, name, section)
        print(report.page({name: section}), flush=True)
    known = report.load(path)
    path.with_suffix(".md").write_text(report.page(known), encoding="utf-8")
    drawn = plot.draw(known, path.with_suffix(".svg"))
    say(f"wrote {path} and .md" + (" and .svg" if drawn else "; pip install 'genret[bench]' draws the figure, too"))


def _shown(options: Options) -> dict[str, object]:
    shown = options._asdict()
    return shown | {"device": str(options.device), "dtype": str(options.dtype).removeprefix("torch.")}


def _numbers(text: str) -> list[int]:
    return [int(word.replace("_", "")) for word in text.split(",")]


def _words(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    main()
