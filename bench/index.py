"""A folder of many pictures that a run follows: the first `genret index`, one without news, one after many changes.

    python -m bench.index RUN PICTURES [--count 20000] [--folder DIR]

Makes `--count` small JPEG files in nested folders by cropping PICTURES at random, and works on a copy of RUN. Writes
the seconds of the whole program, and of the call in Python once everything is loaded; what was counted after 500 files
were renamed, 500 changed and 500 removed; whether the renamed ones kept their identifiers, and how many images were
encoded.
The project's bound: without news at most 2 % of the first. Exits with 1 if a bound or a count is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from bench import machine, report
from bench.encoding import Cost
from bench.report import Row, Section, bar, bars
from genret.toolbox.walk import walk_images

SIDE = 192
PER_FOLDER = 100
CHANGES = 500
BOUND = 0.02


def make_pictures(source: Path, folder: Path, count: int, chance: random.Random) -> list[Path]:
    """Crops of the pictures in `source`, three levels of folders deep, all of different content, ten minutes old."""
    files = list(walk_images([source]))
    made: list[Path] = []
    ago = time.time() - 600
    for number in range(count):
        path = folder / f"{number // (10 * PER_FOLDER):02}" / f"{number // PER_FOLDER % 10}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        crop(files[number % len(files)], path, chance)
        os.utime(path, (ago, ago))
        made.append(path)
    return made


def crop(source: Path, target: Path, chance: random.Random) -> None:
    with Image.open(source) as image:
        image.draft("RGB", (SIDE * 2, SIDE * 2))
        width, height = image.size
        side = round(min(width, height) * chance.uniform(0.5, 0.95))
        left, top = chance.randint(0, width - side), chance.randint(0, height - side)
        box = (left, top, left + side, top + side)
        image.convert("RGB").resize((SIDE, SIDE), box=box).save(target, quality=80)


def program(run: Path, folder: Path) -> tuple[Cost, dict[str, Any]]:
    """Seconds of the whole `genret index`, and its answer."""
    command = [sys.executable, "-m", "genret", "index", "--run", str(run), str(folder), "--json"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, used), json.loads(done.stdout)


def change(made: list[Path], source: Path, chance: random.Random, number: int) -> tuple[dict[Path, Path], list[Path]]:
    """Renames, changes and removes `number` files each → (old path: new path), those removed."""
    chance.shuffle(made)
    files = list(walk_images([source]))
    renamed = {old: old.parent.parent / f"renamed-{old.name}" for old in made[:number]}
    for old, new in renamed.items():
        old.rename(new)
    for place, path in enumerate(made[number : 2 * number]):
        crop(files[-1 - place % len(files)], path, chance)
    removed = made[2 * number : 3 * number]
    for path in removed:
        path.unlink()
    return renamed, removed


def identifiers(run: Any, paths: list[Path]) -> list[tuple[int, Any]]:
    """Key and codes of each image; a key is never reused, so that equal ones are the same image."""
    keys = run.catalog.keys_of([str(path) for path in paths])
    rows = run.catalog.identifiers_of(keys)
    codes: dict[int, list[Any]] = {}
    for place, key in enumerate(rows.image_keys.tolist()):
        codes.setdefault(key, []).append(rows.codes[place].tolist() if rows.codes is not None else None)
    return [(key, codes.get(key)) for key in keys.tolist()]


def measure(run_folder: Path, source: Path, folder: Path, count: int, seed: int = 0) -> dict[str, Any]:
    import genret

    chance = random.Random(seed)
    made = make_pictures(source, folder, count, chance)
    number = min(CHANGES, count // 4)
    first, added = program(run_folder, folder)
    second, same = program(run_folder, folder)
    with genret.load(run_folder) as run:
        start = time.perf_counter()
        run.index(folder)
        loaded = time.perf_counter() - start
        renamed, _ = change(made, source, chance, number)
        before = identifiers(run, list(renamed))
        encoded, encoder = 0, run.components.encoder
        inner = encoder.image_features

        def counting(images: Any, view: int = 0) -> Any:
            nonlocal encoded
            encoded += len(images)
            return inner(images, view)

        encoder.image_features = counting  # type: ignore[method-assign]
        start = time.perf_counter()
        report = run.index(folder, prune=True)
        third = time.perf_counter() - start
        kept = identifiers(run, list(renamed.values())) == before
    return {
        "pictures": count,
        "seconds": {
            "first": round(first.wall, 2),
            "without news": round(second.wall, 2),
            "after changes": round(third, 2),
        },
        "processor_seconds": {"first": round(first.processor, 2), "without news": round(second.processor, 2)},
        "seconds_in_python": {"without news": round(loaded, 2)},
        "without_news_to_first": round(second.wall / first.wall, 4),
        "counts": {"first": added, "without news": same, "after changes": report._asdict()},
        "identifiers_kept": kept,
        "encoded": encoded,
        "right": (
            (added["added"], same["unchanged"]) == (count, count)
            and (report.moved, report.updated, report.removed) == (number, number, number)
            and (report.unchanged, report.added, report.missing) == (count - 3 * number, 0, 0)
            and kept
            and encoded == number
        ),
    }


def section(found: dict[str, Any]) -> Section:
    whole, inside, used = found["seconds"], found["seconds_in_python"], found["processor_seconds"]
    rows: list[Row] = [
        {"system": "genret index, the first time", "seconds": whole["first"], "processor_seconds": used["first"]},
        {
            "system": "genret index, without news",
            "seconds": whole["without news"],
            "processor_seconds": used["without news"],
            "note": "imports included",
        },
        {"system": "Run.index, without news", "seconds": inside["without news"]},
        {"system": "Run.index, after changes", "seconds": whole["after changes"]},
    ]
    rows = [row | {"images": found["pictures"], "to_first": row["seconds"] / whole["first"]} for row in rows]
    results = bars(
        bar("genret index without news against the first time", found["without_news_to_first"], BOUND),
        bar("the same, processor's time", used["without news"] / used["first"], BOUND),
        bar("Run.index without news against the first time", inside["without news"] / whole["first"], BOUND),
        bar("counts, identifiers kept and images encoded that are as they should", float(found["right"]), 1, True, ""),
    )
    checks = {
        f"counted {when}": {name: count for name, count in counts.items() if count}
        for when, counts in found["counts"].items()
    }
    checks["renamed files that kept their identifier, and images encoded after the changes"] = {
        "kept": found["identifiers_kept"], "encoded": found["encoded"],
    }  # fmt: skip
    return Section(
        "A folder followed",
        ["system", "images", "seconds", "to_first", "processor_seconds", "note"],
        rows,
        results,
        checks,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, help="where the files and the copy of the run go; kept if given")
    parser.add_argument("--out", type=Path, default=report.RESULTS / "index-cpu.json")
    given = parser.parse_args()
    measured = machine.facts(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as name:
        folder = given.folder or Path(name)
        run = folder / "run"
        shutil.copytree(given.run, run)
        found = measure(run.absolute(), given.pictures, (folder / "pictures").absolute(), given.count)
    report.save(given.out, "index", report.as_json(section(found), measured, {"count": given.count}))
    print(json.dumps(found, indent=1))
    if not found["right"] or found["without_news_to_first"] > BOUND:
        sys.exit(1)


if __name__ == "__main__":
    main()
