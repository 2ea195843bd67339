"""Flickr8k by its recipe, from photographs to figures: seconds of each stage and what `genret evaluate` found."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from bench import machine
from bench.gpu.options import NOT_MEASURED, measure, parser
from bench.report import Row, Section

RECIPES = ["recipes/avg.yaml", "recipes/scale/flickr8k.yaml"]
TINY = [
    *("dataset.dev_images=4", "dataset.expect={}", "encoder.image.image_size=32", "encoder.views=1"),
    *("encoder.train.epochs=1", "identifier.train.epochs=1", "identifier.codebook_size=4", "identifier.num_levels=2"),
    "train.epochs=1",
]
"""Overrides for a rehearsal with few images."""


def section(arguments: argparse.Namespace, photographs: Path, home: Path) -> Section:
    words = ["train", *RECIPES, "--set", f"dataset.root={photographs}", "--run", str(home / "flickr8k")]
    words += [word for setting in (TINY if arguments.quick else []) for word in ("--set", setting)]
    said = os.environ | {"GENRET_DEVICE": arguments.device, "GENRET_HOME": str(home)}
    if subprocess.run([sys.executable, "-m", "genret", *words], cwd=machine.ROOT, env=said).returncode:
        raise SystemExit("`genret train` failed; what it printed is above")
    summary: dict[str, Any] = json.loads((home / "flickr8k" / "summary.json").read_text(encoding="utf-8"))
    found = summary["evaluation"]
    rows: list[Row] = [{"system": name, "seconds": seconds} for name, seconds in summary["seconds"].items()]
    recalls = {name: found.get(name) for name in ("recall", "two_tower", "ceiling", "reranked")}
    return Section("Flickr8k by its recipe", ["system", "seconds"], rows, [], recalls)


def synthetic(folder: Path) -> Path:
    """24 squares of one colour with captions, in Karpathy's layout."""
    (folder / "images").mkdir(parents=True)
    images = []
    for number in range(24):
        name = f"{number}.png"
        Image.new("RGB", (32, 32), (10 * number, 255 - 10 * number, 99)).save(folder / "images" / name)
        split = "train" if number < 16 else "val"
        sentences = [{"raw": f"a square of colour {number}, seen {way}"} for way in ("near", "far")]
        images.append({"filename": name, "split": split, "sentences": sentences})
    (folder / "dataset_flickr8k.json").write_text(json.dumps({"dataset": "flickr8k", "images": images}))
    return folder


def main() -> None:
    parse = parser(__doc__.split("\n")[0])
    parse.add_argument("--data", help="folder with dataset_flickr8k.json and images/")
    arguments = parse.parse_args()
    given = arguments.data and Path(arguments.data).expanduser().resolve()
    if given is None and not arguments.quick:
        print("no photographs: give --flickr8k FOLDER, with dataset_flickr8k.json and images/ in it")
        raise SystemExit(NOT_MEASURED)
    if find_spec("genret_starter") is None:
        print("no weights: the recipe's come with plugins/genret-starter and the packages that it needs")
        raise SystemExit(NOT_MEASURED)
    with TemporaryDirectory() as home:
        photographs = given or synthetic(Path(home) / "photographs")
        measure(arguments, {"flickr8k": lambda: section(arguments, photographs, Path(home))})


if __name__ == "__main__":
    main()
