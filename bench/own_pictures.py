"""How well a bare folder is searched that was trained on without captions: `python -m bench.own_pictures RUN JSON`.

Copies the run, gives the copy's images the captions of Karpathy's JSON by file name, and evaluates that as any run is
evaluated: the models have not seen these captions, and the run itself stays without them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import tempfile
from pathlib import Path

import genret


def with_captions(run: Path, copy: Path, captions: dict[str, list[str]]) -> int:
    """Copies the run; the number of captions that its images got."""
    shutil.copytree(run, copy)
    with sqlite3.connect(copy / "catalog.sqlite") as database:
        images = database.execute("SELECT id, image_id FROM images").fetchall()
        rows = [
            (key, place, text)
            for key, image_id in images
            for place, text in enumerate(captions.get(Path(image_id).name, ()))
        ]
        database.executemany("INSERT INTO captions (image_key, position, text) VALUES (?, ?, ?)", rows)
    database.close()
    return len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("json", type=Path, help="dataset_flickr8k.json")
    options = parser.parse_args()
    images = json.loads(options.json.read_text(encoding="utf-8"))["images"]
    captions = {image["filename"]: [one["raw"].strip() for one in image["sentences"]] for image in images}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / options.run.name
        count = with_captions(options.run, copy, captions)
        with genret.load(copy) as run:
            found = run.evaluate().as_json()
    wanted = ("num_queries", "num_images", "num_beams", "two_tower", "ceiling", "first_stage", "recall", "reranked")
    print(json.dumps({"run": options.run.name, "captions": count, **{name: found.get(name) for name in wanted}}))
    print(json.dumps({"ledger": [{k: row.get(k) for k in ("stage", "recall", "lost")} for row in found["ledger"]]}))


if __name__ == "__main__":
    main()
