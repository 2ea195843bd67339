"""The tables of guidance on disk, beside the trie's cache, so that a process that opens a large run need not make them.

    <folder>/guidance-<hash of trie and codebooks>.safetensors

They may be deleted at any time. Damaged or foreign files count as missing, and a read-only folder has no cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from genret.components.retrievers.guidance.means import BOOK, STAGES, VECTORS, Points
from genret.decode.trie import Trie
from genret.kit.files import replacing

FORMAT = f"1 {VECTORS} {STAGES} {BOOK}"
LEAST_CACHED = 10_000
"""Below this many identifiers, making the tables is as fast as reading them."""
KEPT = 2
"""Number of files that are kept: a run searches its catalog and evaluates a split."""


def points_of(
    folder: Path | None,
    trie: Trie,
    books: Sequence[Tensor],
    level_tokens: Sequence[Tensor | None],
    before: Points | None = None,
) -> Points:
    """The tables of a trie, read from the folder or made and stored there; parameters as of `Points`."""
    if folder is None or trie.num_leaves < LEAST_CACHED:
        return Points(trie, books, level_tokens, before)
    path = folder / f"guidance-{_fingerprint(trie, books)}.safetensors"
    with suppress(OSError, SafetensorError, KeyError, ValueError):
        stored = {name: table.to(trie.device) for name, table in load_file(path).items()}
        return Points(trie, books, level_tokens, stored=stored)
    made = Points(trie, books, level_tokens, before)
    with suppress(OSError, SafetensorError):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            save_file({name: table.contiguous().cpu() for name, table in made.tables().items()}, part)
        others = sorted(folder.glob("guidance-*.safetensors"), key=lambda file: file.stat().st_mtime)
        for file in others[:-KEPT]:
            file.unlink(missing_ok=True)
    return made


def _fingerprint(trie: Trie, books: Sequence[Tensor]) -> str:
    found = blake2b(FORMAT.encode(), digest_size=10)
    for table in [table for level in trie.levels for table in level] + list(books):
        found.update(f"{table.dtype} {tuple(table.shape)}".encode())
        found.update(table.contiguous().cpu().numpy().data)
    return found.hexdigest()
