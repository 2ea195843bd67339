"""What goes into a catalog and what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


def is_text(name: str) -> bool:
    """Whether every database can keep it: no bytes of another encoding, as file names may have them, and no NUL."""
    return "\0" not in name and (name.isascii() or name.encode(errors="ignore").decode() == name)


class NewImage(NamedTuple):
    """An image to add, with everything that the catalog keeps of it."""

    image_id: str
    uri: str
    sha256: str
    identifiers: Sequence[bytes] = ()
    """As `codec.pack_codes` and `pack_texts` make them; none for dense retrievers."""
    vector: Tensor | None = None
    """(D,) kept as float16"""
    metadata: Mapping[str, Any] = {}
    split: str | None = None
    """The data set's split; None for what a user adds."""
    searchable: bool = True
    captions: Sequence[str] = ()


class ImageRow(NamedTuple):
    key: int
    image_id: str
    uri: str
    sha256: str
    split: str | None
    searchable: bool
    metadata: dict[str, Any]


class IdentifierRows(NamedTuple):
    """R identifiers, ordered by image and then by identifier; of `codes` and `texts` one is set, none if R = 0."""

    image_keys: Ints
    """(R,)"""
    codes: NDArray[np.signedinteger[Any]] | None
    """(R, M), -1 after the end; the narrowest of int16, int32 and int64 that holds them"""
    texts: list[str] | None


class Changes(NamedTuple):
    """What leads from one version of a catalog to a later one: first forget, then add."""

    version: int
    """The version that it leads to."""
    removed: Ints
    """(F,) ascending; images whose identifiers so far hold no more: removed or replaced; some of
    them the reader may never have known"""
    images: Ints
    """(A,) ascending; searchable images that were added, replaced or became searchable, whether they have identifiers
    or not"""
    added: IdentifierRows
    """The identifiers of `images`."""


class CaptionRows(NamedTuple):
    """T captions, ordered by image and position."""

    image_keys: Ints
    """(T,)"""
    texts: list[str]
