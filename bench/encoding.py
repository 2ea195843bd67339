"""What encoding costs beyond its floor, and a first search beyond its imports: `python -m bench.encoding RUN`.

The floor is the image tower's forward passes alone, over pictures that are decoded, resized and in batches of the size
that the tower takes at a time. Beside it `Run.index` of a folder (read, hashed, decoded, thumbnails, codes, catalog),
and the vectors of training (`encode_images` with an empty cache; one view each, and with augmented ones). Pictures:
emoji PNGs, a folder of photographs, and large JPEGs made from them. `--tower RUN`: another run, for photographs alone,
since the default's tower is the smallest there is. Runs are copied, without their thumbnails. Set TMPDIR to a memory
file system: a thumbnail's new file costs ext4 0.02 to 0.9 ms, by how many files were deleted nearby shortly before.

The first search is the whole program `genret search "red heart"`, beside `import torch, transformers`; both by wall
clock and by the processor's time of the process, in turns.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

import genret
from bench import machine, report
from bench.options import say
from bench.report import Row, Section, bar, bars
from genret.kit.encode import LEAST_SIDE, ImageItem, encode_images, opened
from genret.kit.feature_cache import FeatureCache
from genret.kit.images import content_hash, decode_image, read_bytes
from genret.toolbox.walk import walk_images

FILE = report.RESULTS / "encoding-cpu.json"
BOUND = 1.2
LARGE = (4000, 3000)
QUERY = "red heart"


class Cost(NamedTuple):
    """Seconds by the clock, and of all processors; the latter hardly depend on what else the machine does."""

    wall: float
    processor: float


def median(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(one) for one in zip(*costs, strict=True)))


# ------------------------------------------------------------------------------------------------ first search
def first_query(run: Path, rounds: int) -> Section:
    """Programs in turns, each a process of its own; the first round is not counted."""
    imports = "importing torch and transformers"
    programs = {
        imports: ["-c", "import torch, transformers"],
        "genret search, opened and answered": ["-m", "genret", "search", QUERY, "--run", str(run), "-k", "3"],
        "importing a model class of transformers": ["-c", "import torch; from transformers import BertModel"],
    }
    taken: dict[str, list[Cost]] = {name: [] for name in programs}
    for number in range(rounds + 1):
        say(f"  first search, round {number} of {rounds}")
        for name, arguments in programs.items():
            cost = process_seconds([sys.executable, *arguments])
            taken[name] += [cost] if number else []
    rows: list[Row] = []
    for name, costs in taken.items():
        cost = median(costs)
        rows.append({"system": name, "seconds": cost.wall, "processor_seconds": cost.processor})
    for row in rows:
        row |= {"to_imports": row["processor_seconds"] / rows[0]["processor_seconds"]}
    wall = rows[1]["seconds"] / rows[0]["seconds"]
    results = bars(
        bar("a first search against importing torch and transformers, processor's time", rows[1]["to_imports"], 2.0),
        bar("the same by wall clock", wall, 2.0),
    )
    return Section("A first search", ["system", "seconds", "processor_seconds", "to_imports"], rows, results)


def process_seconds(command: list[str]) -> Cost:
    """Of a whole process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


# ------------------------------------------------------------------------------------------------ encoding
def encoding(runs: dict[Path, dict[str, Path]], rounds: int, threads: int, scratch: Path, views: bool) -> Section:
    """`runs`: the folders of pictures that each run encodes."""
    torch.set_num_threads(threads)
    rows: list[Row] = []
    results = []
    for number, (run_folder, kinds) in enumerate(runs.items()):
        copy = scratch / f"run-{threads}-{number}"
        shutil.copytree(run_folder, copy, ignore=shutil.ignore_patterns("thumbnails"))
        with genret.load(copy) as run:
            encoder: Any = run.retriever.encoder
            image = encoder.image
            tower = f"{image.config.model.removeprefix('tf_')}, {image.preprocess.size} px"
            for kind, folder in kinds.items():
                say(f"  {kind}, {tower}, {threads} threads")
                found = race(rivals(run, folder, scratch, views), rounds)
                count = sum(1 for _ in walk_images([folder]))
                for (system, several), cost in found.items():
                    floor = found["floor", several]
                    wall, processor = cost.wall / floor.wall, cost.processor / floor.processor
                    rows.append({
                        "tower": tower, "pictures": kind, "images": count, "system": system, "views": several,
                        "ms": 1000 * cost.wall / count, "to_floor": wall,
                        "processor_ms": 1000 * cost.processor / count, "processor_to_floor": processor,
                    })  # fmt: skip
                    if system != "floor" and several == 1:
                        results.append(
                            bar(f"{system} against the floor, {kind}, {tower}, {threads} threads", wall, BOUND)
                        )
                        results.append(bar("the same, processor's time", processor, BOUND))
    columns = ["tower", "pictures", "images", "system", "views"]
    columns += ["ms", "to_floor", "processor_ms", "processor_to_floor"]
    return Section(f"Encoding, {threads} threads", columns, rows, bars(*results))


Rivals = dict[tuple[str, int], tuple[Callable[[], Any], Callable[[], Any]]]
"""(system, views) → what is timed, and what is done before without being timed."""


def rivals(run: Any, folder: Path, scratch: Path, augmented: bool) -> Rivals:
    files = list(walk_images([folder]))
    datas = [read_bytes(path) for path in files]
    pictures = [
        opened(partial(decode_image, data, str(path), side=LEAST_SIDE)) for data, path in zip(datas, files, strict=True)
    ]
    encoder = run.retriever.encoder
    tower = encoder.image
    whole = tower.inputs(tower.preprocess.pixels(pictures))

    def floor(views: int) -> None:
        with torch.inference_mode(), tower.mixed_precision():
            for _ in range(views):
                for part in whole.split(tower.at_a_time):
                    tower.forward(part)

    def forget() -> None:
        if found := list(run.catalog.added_images()):
            run.retriever.remove(found)
        shutil.rmtree(run.folder / "thumbnails", ignore_errors=True)
        (run.folder / "files.sqlite").unlink(missing_ok=True)

    items = [
        ImageItem(content_hash(data), partial(from_file, path), str(path))
        for path, data in zip(files, datas, strict=True)
    ]
    del datas
    cache_file = scratch / "features.sqlite"

    def features(views: int) -> None:
        with FeatureCache(cache_file) as cache:
            encode_images(encoder, items, cache, views=views)

    empty = partial(cache_file.unlink, missing_ok=True)
    nothing: Callable[[], Any] = list
    found: Rivals = {
        ("floor", 1): (partial(floor, 1), nothing),
        ("genret index", 1): (partial(run.index, folder), forget),
        ("vectors of training", 1): (partial(features, 1), empty),
    }
    if augmented:
        several = 1 + encoder.config.views
        found["floor", several] = (partial(floor, several), nothing)
        found["vectors of training", several] = (partial(features, several), empty)
    return found


def from_file(path: Path) -> Image.Image:
    """As training opens the pictures of a data set."""
    return decode_image(read_bytes(path), str(path), side=LEAST_SIDE)


def race(rivals: Rivals, rounds: int) -> dict[tuple[str, int], Cost]:
    """Medians, in turns; the first round is not counted."""
    taken: dict[tuple[str, int], list[Cost]] = {name: [] for name in rivals}
    for number in range(rounds + 1):
        for name, (work, before) in rivals.items():
            before()
            processor, start = time.process_time(), time.perf_counter()
            work()
            cost = Cost(time.perf_counter() - start, time.process_time() - processor)
            taken[name] += [cost] if number else []
    return {name: median(costs) for name, costs in taken.items()}


def some_of(source: Path, target: Path, count: int) -> Path:
    """The first `count` pictures of a folder."""
    target.mkdir(parents=True)
    for path in list(walk_images([source]))[:count]:
        shutil.copyfile(path, target / path.name)
    return target


def large_jpegs(source: Path, target: Path, count: int) -> Path:
    target.mkdir(parents=True)
    for path in list(walk_images([source]))[:count]:
        with Image.open(path) as image:
            image.convert("RGB").resize(LARGE, Image.Resampling.BICUBIC).save(target / f"{path.stem}.jpg", quality=90)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run of the default recipe")
    parser.add_argument("--emoji", type=Path, help="a folder of emoji PNGs")
    parser.add_argument("--photos", type=Path, help="a folder of photographs")
    parser.add_argument("--tower", type=Path, help="another finished run, that only the photographs are encoded with")
    parser.add_argument("--only", choices=("first", "encoding"))
    parser.add_argument("--count", type=int, default=256, help="pictures of a kind; a sixteenth of them are large")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--views", action="store_true", help="also with the augmented views of training")
    parser.add_argument("--threads", type=int, nargs="+", default=[os.cpu_count() or 1, 1])
    parser.add_argument("--out", type=Path, default=FILE)
    given = parser.parse_args()
    sections = dict[str, Section]()
    measured = machine.facts(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if given.only != "encoding":
            copy = scratch / "run"
            shutil.copytree(given.run, copy)
            sections["first"] = first_query(copy, given.rounds)
        if given.only != "first":
            kinds = dict[str, Path]()
            if given.emoji:
                kinds["emoji"] = some_of(given.emoji, scratch / "emoji", given.count)
            if given.photos:
                kinds["photographs"] = some_of(given.photos, scratch / "photos", given.count)
                kinds["large JPEGs"] = large_jpegs(given.photos, scratch / "large", max(4, given.count // 16))
            runs = {given.run: kinds}
            if given.tower:
                runs[given.tower] = {kind: folder for kind, folder in kinds.items() if kind != "emoji"}
            for threads in given.threads:
                sections[f"encoding-{threads}"] = encoding(runs, given.rounds, threads, scratch, given.views)
    options = {"rounds": given.rounds, "count": given.count}
    for key, section in sections.items():
        report.save(given.out, key, report.as_json(section, measured, options))
    print(report.page({key: report.load(given.out)[key] for key in sections}))


if __name__ == "__main__":
    main()
