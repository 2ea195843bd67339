"""A catalog as safetensors and JSON, in chunks: no database of others is ever opened.

n images of a chunk   D width   R identifiers   M levels
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from genret.catalog.codec import pack_codes, pack_texts
from genret.catalog.place import run_id_of
from genret.catalog.rows import NewImage
from genret.catalog.snapshot import Snapshot
from genret.catalog.store import Catalog
from genret.errors import GenretError, one_line
from genret.kit.files import read_json, write_json

CHUNK = 16_384
"""Images of one pair of files."""
FOLDER = "catalog"
_SHA256 = re.compile(r"[0-9a-f]{64}")


def portable(uri: str) -> str:
    """Where an image lies, without folders that another machine does not have or should not be asked for."""
    path = PureWindowsPath(uri)  # understands both kinds of slashes
    outside = path.drive or path.root or ".." in path.parts or uri.startswith("~") or uri.startswith("file:")
    return path.name if outside else uri


def export_catalog(catalog: Catalog, folder: Path, added: bool, location: Callable[[str], str]) -> list[str]:
    """Writes `000000.safetensors` and `000000.json` and so on → the sha256 of all written images.

    `added`: with the images that users added. `location`: what is told of where an image lies.
    """
    folder.mkdir()
    hashes: list[str] = []
    with catalog.snapshot() as snapshot:
        words: dict[int, list[str]] = {}
        splits = [split for split in snapshot.splits() if split is not None]
        for split in splits:
            rows = snapshot.captions(split)
            for key, text in zip(rows.image_keys.tolist(), rows.texts, strict=True):
                words.setdefault(key, []).append(text)
        keys = (
            snapshot.keys() if added else np.sort(np.concatenate([np.zeros(0, np.int64), *map(snapshot.keys, splits)]))
        )
        for number, start in enumerate(range(0, len(keys), CHUNK)):
            hashes += _write(snapshot, keys[start : start + CHUNK], words, folder / f"{number:06}", location)
    return hashes


def _write(snapshot: Snapshot, keys: Any, words: dict[int, list[str]], file: Path, location: Any) -> list[str]:
    rows, named = snapshot.lookup(keys), snapshot.identifiers_of(keys)
    owners = np.searchsorted(keys, named.image_keys)
    tensors = {"owners": torch.from_numpy(owners)}  # (R,)
    if snapshot.feature_dim:
        tensors["features"] = snapshot.features_of(keys).half()  # (n, D)
    if named.codes is not None:
        tensors["codes"] = torch.from_numpy(np.ascontiguousarray(named.codes))  # (R, M)
    save_file(tensors, file.with_suffix(".safetensors"))
    images = [
        {
            "id": row.image_id,
            "uri": location(row.uri),
            "sha256": row.sha256,
            "split": row.split,
            "searchable": row.searchable,
            "metadata": row.metadata,
            "captions": words.get(row.key, []),
        }
        for row in rows
    ]
    write_json(file.with_suffix(".json"), {"images": images, "texts": named.texts})
    return [row.sha256 for row in rows]


def import_catalog(folder: Path, run: Path) -> int:
    """Makes the run's `catalog.sqlite` of an exported catalog, or an empty one where there is none → its images."""
    with Catalog.create(run / "catalog.sqlite", run_id_of(run)) as catalog:
        for file in sorted(folder.glob("*.json")):
            try:
                catalog.add(_read(file))
            except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, OSError) as error:
                raise GenretError(f"{FOLDER}/{file.name} is no part of a catalog ({one_line(error)})") from None
        return catalog.image_count()


def _read(file: Path) -> Iterator[NewImage]:
    images, tensors = read_json(file), load_file(file.with_suffix(".safetensors"))
    names = (
        pack_texts(images["texts"]) if images["texts"] else pack_codes(tensors["codes"]) if "codes" in tensors else []
    )
    identifiers: list[list[bytes]] = [[] for _ in images["images"]]
    for owner, name in zip(tensors["owners"].tolist(), names, strict=True):
        identifiers[owner].append(name)
    vectors = tensors.get("features")
    if vectors is not None and (len(vectors) != len(identifiers) or not bool(vectors.isfinite().all())):
        raise ValueError("its vectors are not those of its images")
    for row, image in enumerate(images["images"]):
        if not _SHA256.fullmatch(image["sha256"]):  # it becomes the name of a file
            raise ValueError("a sha256 is none")
        yield NewImage(
            str(image["id"]),
            portable(str(image["uri"])),
            image["sha256"],
            identifiers[row],
            None if vectors is None else vectors[row].float(),
            dict(image["metadata"]),
            None if image["split"] is None else str(image["split"]),
            bool(image["searchable"]),
            [str(text) for text in image["captions"]],
        )
