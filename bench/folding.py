"""What folded batch norms change in a search: `python -m bench.folding RUN [--queries 1000]`.

Copies a trained run and sets `encoder.image.fold` there; the pictures that it searches are encoded and named anew by
its own heads and codebooks. Compares vectors, codes and the recall of the first captions, of the dense search and of
the whole. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml

import genret
from genret.api import Restriction
from genret.kit.encode import LEAST_SIDE
from genret.kit.images import decode_image

BATCH = 64


def folded_copy(run: Path, copy: Path) -> None:
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("evaluations", "trie*"))
    recipe = yaml.safe_load((copy / "recipe.yaml").read_text(encoding="utf-8"))
    recipe["encoder"]["image"]["fold"] = True
    (copy / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")


def rename_all(run: Any) -> dict[str, float]:
    """Encodes and names the searched pictures anew → how much that changed."""
    with sqlite3.connect(run.folder / "catalog.sqlite") as database:
        rows = database.execute("SELECT id, image_id FROM images WHERE searchable ORDER BY id").fetchall()
        encoder, same, cosines = run.retriever.encoder, [], []
        pictures = {record.image_id: record for record in run.dataset.records(run.dataset.test_split)}
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            records = [pictures[image_id] for _, image_id in part]
            images = [decode_image(run.dataset.read(one), one.uri, side=LEAST_SIDE) for one in records]
            with torch.no_grad():
                vectors = F.normalize(encoder.project_images(encoder.image_features(images)).float(), dim=-1)
            names = run.retriever.identifiers(vectors, [image_id for _, image_id in part])
            for (key, _), vector, new in zip(part, vectors, names, strict=True):
                before = database.execute("SELECT vector FROM features WHERE image_key = ?", (key,)).fetchone()[0]
                old = torch.frombuffer(bytearray(before), dtype=torch.float16).float()
                cosines.append(float(F.cosine_similarity(old, vector, dim=0)))
                known = {
                    one for (one,) in database.execute("SELECT identifier FROM identifiers WHERE image_key = ?", (key,))
                }
                same.append(known == set(new))
                database.execute(
                    "UPDATE features SET vector = ? WHERE image_key = ?", (vector.half().numpy().tobytes(), key)
                )
                database.execute("DELETE FROM identifiers WHERE image_key = ?", (key,))
                database.executemany("INSERT INTO identifiers VALUES (?, ?, 1)", [(key, one) for one in new])
    database.close()
    return {
        "pictures": len(rows),
        "mean_cosine": sum(cosines) / len(cosines),
        "least_cosine": min(cosines),
        "share_of_same_codes": sum(same) / len(same),
    }


def recalls(run: Any, queries: int) -> dict[str, Any]:
    """Recall at 1, 5 and 10 of the first captions, in percent."""
    with sqlite3.connect(run.folder / "catalog.sqlite") as database:
        rows = database.execute(
            "SELECT images.id, images.image_id, captions.text FROM captions JOIN images ON images.id = image_key "
            "WHERE images.searchable AND position = 0 ORDER BY images.id LIMIT ?", (queries,)
        ).fetchall()  # fmt: skip
        stored = database.execute(
            "SELECT image_key, vector FROM features JOIN images ON images.id = image_key WHERE searchable ORDER BY id"
        ).fetchall()
    database.close()
    keys, texts = [key for key, _, _ in rows], [text for _, _, text in rows]
    vectors = torch.stack([torch.frombuffer(bytearray(one), dtype=torch.float16).float() for _, one in stored])
    right = torch.tensor([[key] for key in keys])
    nearest = (run.retriever.text_vectors(texts) @ F.normalize(vectors, dim=-1).T).topk(10).indices
    dense = torch.tensor([key for key, _ in stored])[nearest] == right
    hits = run.search(texts, k=10, restrict=Restriction())
    found = torch.zeros(len(rows), 10, dtype=torch.bool)
    for row, ((_, image_id, _), result) in enumerate(zip(rows, hits, strict=True)):
        for hit in result.hits:
            found[row, hit.rank - 1] = hit.image_id == image_id
    return {
        name: {str(k): round(100 * float(which[:, :k].any(1).float().mean()), 2) for k in (1, 5, 10)}
        for name, which in (("dense", dense), ("recall", found))
    } | {"queries": len(rows)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--queries", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        before, copy = Path(folder) / "before", Path(folder) / "folded"
        shutil.copytree(given.run, before, ignore=shutil.ignore_patterns("evaluations"))
        with genret.load(before) as run:
            found: dict[str, Any] = {"before": recalls(run, given.queries)}
        folded_copy(given.run, copy)
        with genret.load(copy) as run:
            found["changed"] = rename_all(run)
        with genret.load(copy) as run:
            found["folded"] = recalls(run, given.queries)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
