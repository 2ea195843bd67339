"""The trie of a catalog's images on disk, so that opening a large run does not read every identifier.

    <folder>/<key>-<version>/trie.safetensors, images.safetensors

It may be deleted at any time. Damaged, foreign or outdated entries count as missing, and a read-only folder has no
cache. `LiveTrie` checks, with the catalog's version, whether an entry is still valid.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from genret.decode.trie import Trie
from genret.errors import GenretError
from genret.search.image_trie import ImageTrie
from genret.search.ranking import LeafImages

FORMAT = "genret-image-trie-1"
FILES = ("trie.safetensors", "images.safetensors")
OWN = re.compile(r"[0-9a-z]+-\d+|(?P<partial>[0-9a-f]{32}\.partial)")
"""Names of entries."""
FORGOTTEN = 24 * 3600
"""Seconds after which an unfinished entry counts as abandoned."""


class Versioned(NamedTuple):
    version: int
    """Of the catalog."""
    held: ImageTrie | None
    """On the CPU; None without images."""


class TrieCache:
    """`key` identifies what the tokens depend on besides the catalog's version.

    num_tokens: size of the vocabulary.
    """

    def __init__(self, folder: Path, key: str, num_tokens: int = 2**31):
        self.folder = folder
        self.key = key
        self.num_tokens = num_tokens

    def load(self) -> Versioned | None:
        """The newest readable entry, memory-mapped; None if there is none."""
        for version, path in sorted(self._entries(), reverse=True):
            try:
                with safe_open(path / "images.safetensors", framework="pt") as file:
                    if (file.metadata() or {}).get("format") != FORMAT:
                        continue
                    leaf_images = LeafImages(*(file.get_tensor(name).numpy() for name in LeafImages._fields))
                trie = Trie.load(path / "trie.safetensors")
                if not is_sound(trie, leaf_images, self.num_tokens):
                    continue
            except (GenretError, SafetensorError, OSError, ValueError, IndexError):
                continue
            return Versioned(version, ImageTrie(trie, leaf_images))
        return None

    def save(self, found: Versioned) -> None:
        """Writes an entry atomically and removes older ones."""
        assert found.held is not None
        path = self.folder / f"{self.key}-{found.version}"
        partial = self.folder / f"{uuid.uuid4().hex}.partial"
        try:
            partial.mkdir(parents=True)
            found.held.trie.save(partial / "trie.safetensors")
            tables = {name: torch.from_numpy(table) for name, table in found.held.leaf_images._asdict().items()}
            save_file(tables, partial / "images.safetensors", metadata={"format": FORMAT})
            for file in partial.iterdir():
                _flush(file)
            if not path.exists():
                partial.rename(path)
            self._forget(path)
        except (OSError, SafetensorError):
            pass  # read-only or full: the next process reads the catalog again
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _forget(self, newest: Path) -> None:
        """Removes older entries only; symbolic links are not followed."""
        if self.folder.is_symlink():
            return
        for other in self.folder.iterdir():  # processes that have mapped an entry keep it
            kind = OWN.fullmatch(other.name)
            if kind is None or other == newest or other.is_symlink() or not other.is_dir():
                continue
            being_written = bool(kind["partial"]) and time.time() - other.stat().st_mtime < FORGOTTEN
            if not being_written and all(file.name in FILES for file in other.iterdir()):
                shutil.rmtree(other, ignore_errors=True)

    def _entries(self) -> list[tuple[int, Path]]:
        try:
            named = [(path.name.rpartition("-"), path) for path in self.folder.iterdir()]
        except OSError:
            return []
        return [(int(version), path) for (key, _, version), path in named if key == self.key and version.isdigit()]


def is_sound(trie: Trie, leaf_images: LeafImages, num_tokens: int) -> bool:
    """Whether every index of a stored trie lies within the table that it points into. Reads each table once."""
    nodes = 1
    for level, most in zip(trie.levels, trie.max_children, strict=True):
        offsets, symbols, columns = (table.numpy() for table in level)
        if not (len(offsets) == nodes + 1 and len(symbols) and _steps_to(offsets, len(symbols), most)):
            return False
        if symbols.min() < 0 or symbols.max() >= len(columns) or columns.min() < -1 or columns.max() >= num_tokens:
            return False
        nodes = len(symbols)
    leaves, (starts, images) = trie.leaf_of_row.numpy(), leaf_images
    if len(leaves) and (leaves.min() < 0 or leaves.max() >= nodes):
        return False
    return len(starts) == trie.num_leaves + 1 and _steps_to(starts, len(images)) and bool((images >= 0).all())


def _steps_to(offsets: NDArray[Any], end: int, most: int | None = None) -> bool:
    """Whether offsets begin at 0, end at `end`, and grow by 1 to `most` at each step."""
    steps = np.diff(offsets)
    within = len(steps) > 0 and bool((steps > 0).all()) and (most is None or int(steps.max()) == most)
    return within and int(offsets[0]) == 0 and int(offsets[-1]) == end


def _flush(file: Path) -> None:
    """Flushes the file to disk before it is renamed."""
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
