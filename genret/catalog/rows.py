"""The records that are written to a catalog and read from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genret.kit.arrays import Ints

if TYPE_CHECKING:
    from torch import Tensor


def is_text(name: str) -> bool:
    """Whether every database can store it: no invalid UTF-8, which file names may contain, and no NUL."""
    return "\0" not in name and (name.isascii() or name.encode(errors="ignore").decode() == name)


class NewImage(NamedTuple):
    """An image to add, with everything that the catalog stores of it."""

    image_id: str
    uri: str
    sha256: str
    identifiers: Sequence[bytes] = ()
    """In the form of `codec.pack_codes` and `pack_texts`; none for dense retrievers."""
    vector: Tensor | None = None
    """(D,) stored as float16"""
    metadata: Mapping[str, Any] = {}
    split: str | None = None
    """The dataset's split; None for images that a user adds."""
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
    """R identifiers, ordered by image and then by identifier; one of `codes` and `texts` is set, none if R = 0."""

    image_keys: Ints
    """(R,)"""
    codes: NDArray[np.signedinteger[Any]] | None
    """(R, M), -1 after the end; the narrowest of int16, int32 and int64 that holds them"""
    texts: list[str] | None


class Changes(NamedTuple):
    """The changes from one version of a catalog to a later one: first remove, then add."""

    version: int
    """The later version."""
    removed: Ints
    """(F,) ascending; images that were removed or replaced, so that their identifiers are outdated; the reader may not
    have known some of them"""
    images: Ints
    """(A,) ascending; searchable images that were added, replaced or became searchable, with or without identifiers"""
    added: IdentifierRows
    """The identifiers of `images`."""


class CaptionRows(NamedTuple):
    """T captions, ordered by image and position."""

    image_keys: Ints
    """(T,)"""
    texts: list[str]
