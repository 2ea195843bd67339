"""Identifiers as bytes that have the same order.

An identifier of codes is the tag `C` and two big-endian bytes per code; a code from 65535 on is `ff ff` and four
more bytes. So an identifier always has the same bytes, bytes sort as the sequences of codes do, and a prefix sorts
before the longer identifier. An identifier of text is the tag `T` and its UTF-8.

    R identifiers   M levels
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genret.errors import GenretError

if TYPE_CHECKING:
    from torch import Tensor

CODES = b"C"
TEXT = b"T"
_ESCAPE = 0xFFFF


class Unpacked(NamedTuple):
    """R identifiers; exactly one of the two is set."""

    codes: NDArray[np.signedinteger[Any]] | None
    """(R, M), -1 after the end of a shorter identifier; the narrowest of int16, int32 and int64 that holds them"""
    texts: list[str] | None


def pack_codes(codes: Tensor) -> list[bytes]:
    """(R, M) int64, -1 after the end → R blobs."""
    assert codes.ndim == 2 and not codes.is_floating_point(), "codes: (R, M) integers"
    table = codes.cpu().numpy().astype(np.int64)
    there, escaped = table >= 0, table >= _ESCAPE
    assert not (there[:, 1:] & ~there[:, :-1]).any(), "-1 may only stand after the end of an identifier"
    assert not table.size or -1 <= table.min() <= table.max() < 2**32
    halves = np.stack([np.where(escaped, _ESCAPE, table), table >> 16, table & 0xFFFF], axis=2).astype(">u2")
    used = np.stack([there, escaped, escaped], axis=2)  # (R, M, 3)
    joined, ends = halves[used].tobytes(), 2 * used.sum((1, 2)).cumsum()
    return [CODES + joined[start:end] for start, end in pairwise([0, *ends.tolist()])]


def pack_texts(texts: Sequence[str]) -> list[bytes]:
    """R strings → R blobs."""
    return [TEXT + text.encode() for text in texts]


def unpack(blobs: Sequence[bytes]) -> Unpacked:
    """Inverse of `pack_codes` and `pack_texts`; all blobs must be of one kind."""
    return unpack_joined(b"".join(blobs), np.fromiter(map(len, blobs), np.int64, len(blobs)))


def unpack_joined(joined: bytes, lengths: NDArray[np.int64]) -> Unpacked:
    """R blobs concatenated, and the number of bytes of each (R,)."""
    if not len(lengths):
        return Unpacked(np.zeros((0, 0), dtype=np.int16), None)
    data = np.frombuffer(joined, dtype=np.uint8)
    starts = np.cumsum(lengths) - lengths
    tags = set(np.unique(data[starts]).tolist()) if lengths.min() else set()
    if tags == {TEXT[0]}:
        try:
            bounds = pairwise([*starts.tolist(), len(joined)])
            return Unpacked(None, [joined[start + 1 : end].decode() for start, end in bounds])
        except UnicodeDecodeError:
            raise GenretError("an identifier in the catalog is damaged: it is no UTF-8 text") from None
    if tags != {CODES[0]}:
        raise GenretError("the catalog mixes identifiers of symbols and of text, or holds damaged ones")
    if (lengths % 2 == 0).any():
        raise GenretError("an identifier in the catalog is damaged: a symbol is cut in two")
    if (lengths == lengths[0]).all():
        table = np.ascontiguousarray(data.reshape(len(lengths), -1)[:, 1:]).view(">u2")
        if not (table == _ESCAPE).any():
            return Unpacked(table.astype(_width(table)), None)
    return Unpacked(_rows(np.delete(data, starts).view(">u2"), lengths // 2), None)


def _rows(halves: NDArray[np.uint16], counts: NDArray[np.int64]) -> NDArray[np.signedinteger[Any]]:
    """All codes' 16-bit words concatenated and their number per row (R,) → (R, M), one position at a time."""
    place = np.cumsum(counts) - counts
    ends = place + counts
    padded = np.append(halves, [0, 0, 0]).astype(np.int64)
    columns: list[NDArray[np.int64]] = []
    while (there := place < ends).any():
        symbols = np.where(there, padded[np.where(there, place, 0)], -1)
        escaped = np.flatnonzero(symbols == _ESCAPE)
        symbols[escaped] = padded[place[escaped] + 1] << 16 | padded[place[escaped] + 2]
        place = place + there
        place[escaped] += 2
        columns.append(symbols)
    if (place > ends).any():
        raise GenretError("an identifier in the catalog is damaged: it ends within a symbol")
    codes = np.stack(columns, axis=1) if columns else np.zeros((len(counts), 0), dtype=np.int64)
    return codes.astype(_width(codes))


def _width(codes: NDArray[Any]) -> type[np.signedinteger[Any]]:
    highest = int(codes.max(initial=0))
    return np.int16 if highest < 2**15 else np.int32 if highest < 2**31 else np.int64


def pack_vectors(vectors: Tensor) -> list[bytes]:
    """(n, D) → n blobs of little-endian float16."""
    return [row.tobytes() for row in vectors.detach().cpu().half().numpy().astype("<f2")]


def unpack_vectors(blobs: Sequence[bytes], width: int) -> NDArray[np.float32]:
    """n blobs → (n, D) float32"""
    if any(len(blob) != 2 * width for blob in blobs):
        raise GenretError("a vector in the catalog is damaged: it has the wrong length")
    return np.frombuffer(b"".join(blobs), dtype="<f2").reshape(len(blobs), width).astype(np.float32)
