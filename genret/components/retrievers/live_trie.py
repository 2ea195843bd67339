"""The trie of all searchable images, updated as other processes change the catalog.

It is loaded once, from a cache beside the catalog if possible, and updated by the changes since: n images added to N
cost work for n, and copies of the old tables.

    R identifiers   L tokens
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from genret.catalog.store import Changes, IdentifierRows, Snapshot
from genret.components.retrievers.spelling import strip_padding
from genret.components.retrievers.trie_cache import TrieCache, Versioned
from genret.search.image_trie import ImageTrie

Tokenize = Callable[[IdentifierRows], Tensor]
"""R > 0 rows of a catalog → (R, L) tokens, -1 after the end."""
LEAST_CACHED = 10_000
"""Below this many identifiers, building the trie is as fast as reading it."""
MOST_BEHIND = 0.05
"""A cache is rewritten if more than this share of its identifiers changed."""
SAMPLE = 64
"""Number of identifiers of a cache to compare with the catalog."""


class LiveTrie:
    """Not thread-safe; versions must not decrease. Returned tries are never modified."""

    def __init__(self, tokenize: Tokenize, device: torch.device, cache: TrieCache | None = None):
        self._tokenize = tokenize
        self._device = device
        self._cache = cache
        self._known: Versioned | None = None
        self._searched: ImageTrie | None = None
        self._behind = 0
        """Identifiers that changed since the cache was written."""

    def at(self, snapshot: Snapshot) -> ImageTrie | None:
        """The trie of the searchable images of this catalog version, on the device; None without images."""
        if self._known is None:
            self._known = self._cached(snapshot)
        if self._known is None or self._known.version != snapshot.version:
            self._known = self._advanced(snapshot, self._known)
            self._searched = None
        if self._searched is None and self._known.held is not None:
            self._searched = self._known.held.to(self._device)
        return self._searched

    def _advanced(self, snapshot: Snapshot, known: Versioned | None) -> Versioned:
        changes = None if known is None else snapshot.changes_since(known.version)
        if known is None or changes is None:
            found = Versioned(snapshot.version, self._built(snapshot))
            self._keep(found)
            return found
        found = Versioned(changes.version, self._followed(known.held, changes))
        self._behind += len(changes.removed) + len(changes.added.image_keys)
        if found.held is not None and self._behind > MOST_BEHIND * len(found.held.leaf_images.images):
            self._keep(found)
        return found

    def _built(self, snapshot: Snapshot) -> ImageTrie | None:
        """Builds the trie from all rows of the catalog, as a stream."""
        keys, tokens = [], []
        for rows in snapshot.identifier_rows(searchable=True):
            keys.append(rows.image_keys)
            tokens.append(self._tokenize(rows).int().cpu())
        return ImageTrie.build(_joined(tokens), np.concatenate(keys)).rowless() if keys else None

    def _followed(self, index: ImageTrie | None, changes: Changes) -> ImageTrie | None:
        if index is not None:
            index = index.without(changes.removed)
        rows = changes.added
        if not len(rows.image_keys):
            return index if index is None or len(index.leaf_images.images) else None
        tokens = self._tokenize(rows).int().cpu()
        if index is None or not len(index.leaf_images.images):
            return ImageTrie.build(tokens, rows.image_keys).rowless()
        return index.extended(tokens, rows.image_keys)

    # ------------------------------------------------------------------------------------------------------ cache
    def _cached(self, snapshot: Snapshot) -> Versioned | None:
        """The cached trie, updated to this version; None if it does not match the catalog."""
        found = None if self._cache is None else self._cache.load()
        if found is None or (changes := snapshot.changes_since(found.version)) is None:
            return None
        self._behind = len(changes.removed) + len(changes.added.image_keys)
        found = Versioned(changes.version, self._followed(found.held, changes))
        return found if found.held is None or self._agrees(snapshot, found.held) else None

    def _agrees(self, snapshot: Snapshot, index: ImageTrie) -> bool:
        """Whether a sample of identifiers has the tokens that catalog and backbone give."""
        starts, images = index.leaf_images
        leaves = np.unique(np.linspace(0, len(starts) - 2, SAMPLE).astype(np.int64))
        rows = snapshot.identifiers_of(images[starts[leaves]].astype(np.int64))
        if not len(rows.image_keys):
            return False
        spelt = {
            (key, strip_padding(row)) for key, row in zip(rows.image_keys.tolist(), self._tokenize(rows), strict=True)
        }
        cached = index.trie.tokens_of(torch.from_numpy(leaves))
        return all(
            (int(key), strip_padding(row)) in spelt for key, row in zip(images[starts[leaves]], cached, strict=True)
        )

    def _keep(self, found: Versioned) -> None:
        self._behind = 0
        large = found.held is not None and len(found.held.leaf_images.images) >= LEAST_CACHED
        if self._cache is not None and large:
            self._cache.save(found)


def _joined(parts: list[Tensor]) -> Tensor:
    """Concatenates tables of different widths; empties the list meanwhile, to hold nothing twice."""
    table = parts[0].new_full((sum(map(len, parts)), max(part.shape[1] for part in parts)), -1)
    end = len(table)
    while parts:
        part = parts.pop()
        table[end - len(part) : end, : part.shape[1]] = part
        end -= len(part)
    return table
