"""What goes into a catalog and what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


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
    codes: Ints | None
    """(R, M), -1 after the end"""
    texts: list[str] | None


class CaptionRows(NamedTuple):
    """T captions, ordered by image and position."""

    image_keys: Ints
    """(T,)"""
    texts: list[str]
