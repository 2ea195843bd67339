"""The rank of the positive for every query, stored with the run so that runs can be compared query by query.

One file per split and way of searching, `<run>/evaluations/<split>.<way>.safetensors`. Independent of models.

Q queries
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from genret.errors import GenretError
from genret.kit.arrays import Ints
from genret.kit.files import replacing

FOLDER = "evaluations"
FORMAT = "1"
TWO_TOWER = "two-tower"
"""The way of searching that every run has: exact dense search."""
OWN_SEARCH = "search"
"""The way of searching of a run without beams: as its recipe says, reranked if it has a reranker."""

DROWNED_OUT = "guidance-alone"
"""The first stage of a guided search with its language model drowned out."""


class QueryRanks(NamedTuple):
    """Ranks of one way of searching one split, with hashes that show whether another run had the same queries."""

    ranks: Ints
    """(Q,) rank of the positive, from 1; MISSED if it was not found"""
    queries: Ints
    """(Q,) a hash of each caption and its image"""
    images: str
    """A hash of the ids of the searched images"""


def beams(num_beams: int) -> str:
    """The name of searching by a generator with this beam width."""
    return f"{num_beams}-beams"


def write_ranks(
    run: Path,
    split: str,
    queries: Sequence[str],
    relevant: Iterable[int],
    image_ids: Sequence[str],
    found: Mapping[str, Ints],
) -> None:
    """Stores the ranks of each way of searching. relevant (Q,): rows of `image_ids`."""
    hashes = query_hashes(queries, relevant, image_ids)
    about = json.dumps({"format": FORMAT, "images": f"{_hash(*sorted(image_ids)):016x}"})
    facts = {"ranks": about}  # one entry: safetensors writes several in no fixed order
    (run / FOLDER).mkdir(exist_ok=True)
    for way, ranks in found.items():
        path = ranks_path(run, split, way)
        with replacing(path) as partial:
            save_file({"ranks": ranks, "queries": hashes}, partial, facts)


def query_hashes(queries: Sequence[str], relevant: Iterable[int], image_ids: Sequence[str]) -> Ints:
    """(Q,) a hash of each caption and its image, to check whether two runs had the same queries."""
    hashes = [_hash(query, image_ids[row]) for query, row in zip(queries, relevant, strict=True)]
    return np.array(hashes, np.uint64).view(np.int64)


def read_ranks(run: Path, split: str, way: str) -> QueryRanks | None:
    """The ranks stored by `write_ranks`; None if there are none."""
    path = ranks_path(run, split, way)
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads((file.metadata() or {}).get("ranks", "{}"))
            if facts.get("format") != FORMAT:
                raise GenretError(f"{path} was written by another version of genret; delete it and evaluate again")
            ranks, queries = file.get_tensor("ranks"), file.get_tensor("queries")
    except (SafetensorError, ValueError, AttributeError):
        raise GenretError(f"{path} is damaged; delete it and run: genret evaluate --run {run}") from None
    return QueryRanks(ranks, queries, facts["images"])


def ranks_path(run: Path, split: str, way: str) -> Path:
    return run / FOLDER / f"{split}.{way}.safetensors"


def _hash(*words: str) -> int:
    text = "\0".join(words).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
