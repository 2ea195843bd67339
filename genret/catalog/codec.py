"""Identifiers as bytes that sort as the identifiers do.

An identifier of symbols is the tag `C` and, for each symbol, two big-endian bytes; a symbol from 65535 on is `ff ff`
and four more. So the same identifier always has the same bytes, bytes compare as the sequences of symbols compare, and
the beginning of an identifier sorts before the whole. An identifier of text is the tag `T` and its UTF-8.

    R identifiers   M levels
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genret.errors import GenretError

CODES = b"C"
TEXT = b"T"
_ESCAPE = 0xFFFF


class Unpacked(NamedTuple):
    """R identifiers; exactly one of the two is set."""

    codes: NDArray[np.int64] | None
    """(R, M), -1 after the end of a shorter identifier"""
    texts: list[str] | None


def pack_codes(codes: Tensor) -> list[bytes]:
    """(R, M) int64, -1 after the end → R blobs."""
    assert codes.ndim == 2 and not codes.is_floating_point(), "codes: (R, M) integers"
    table = codes.cpu().numpy().astype(np.int64)
    there = table >= 0
    lengths = there.sum(axis=1)
    assert not (there[:, 1:] & ~there[:, :-1]).any(), "-1 may only stand after the end of an identifier"
    assert not table.size or -1 <= table.min() <= table.max() < 2**32
    short = np.where(table < 0, 0, table).astype(">u2")
    escapes: NDArray[np.bool_] = np.asarray((table >= _ESCAPE).any(axis=1))
    return [
        CODES + (_pack_long(row[:length]) if escaped else row_short[:length].tobytes())
        for row, row_short, length, escaped in zip(table, short, lengths, escapes, strict=True)
    ]


def pack_texts(texts: Sequence[str]) -> list[bytes]:
    """R strings → R blobs."""
    return [TEXT + text.encode() for text in texts]


def unpack(blobs: Sequence[bytes]) -> Unpacked:
    """What `pack_codes` or `pack_texts` packed; all blobs must be of one kind."""
    tags = {blob[:1] for blob in blobs}
    if tags == {TEXT}:
        try:
            return Unpacked(None, [blob[1:].decode() for blob in blobs])
        except UnicodeDecodeError:
            raise GenretError("an identifier in the catalog is damaged: it is no UTF-8 text") from None
    if tags - {CODES}:
        raise GenretError("the catalog mixes identifiers of symbols and of text, or holds damaged ones")
    if any(len(blob) % 2 == 0 for blob in blobs):
        raise GenretError("an identifier in the catalog is damaged: a symbol is cut in two")
    halves = np.frombuffer(b"".join(blob[1:] for blob in blobs), dtype=">u2").astype(np.int64)
    lengths = np.array([len(blob) // 2 for blob in blobs], dtype=np.int64)
    if (halves == _ESCAPE).any():
        sequences = [_unpack_long(blob[1:]) for blob in blobs]
        halves = np.array([symbol for sequence in sequences for symbol in sequence], dtype=np.int64)
        lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    codes = np.full((len(blobs), int(lengths.max(initial=0))), -1, dtype=np.int64)
    codes[np.arange(codes.shape[1]) < lengths[:, None]] = halves
    return Unpacked(codes, None)


def pack_vectors(vectors: Tensor) -> list[bytes]:
    """(n, D) → n blobs of little-endian float16."""
    return [row.tobytes() for row in vectors.detach().cpu().to(torch.float16).numpy().astype("<f2")]


def unpack_vectors(blobs: Sequence[bytes], width: int) -> Tensor:
    """n blobs → (n, D) float32"""
    if any(len(blob) != 2 * width for blob in blobs):
        raise GenretError("a vector in the catalog is damaged: it has the wrong length")
    halves = np.frombuffer(b"".join(blobs), dtype="<f2").reshape(len(blobs), width)
    return torch.from_numpy(halves.astype(np.float32))


def _pack_long(symbols: NDArray[np.int64]) -> bytes:
    return b"".join(
        int(symbol).to_bytes(2, "big") if symbol < _ESCAPE else b"\xff\xff" + int(symbol).to_bytes(4, "big")
        for symbol in symbols
    )


def _unpack_long(packed: bytes) -> list[int]:
    symbols: list[int] = []
    at = 0
    while at < len(packed):
        width = 4 if packed[at : at + 2] == b"\xff\xff" else 2
        at += width - 2
        if at + width > len(packed):
            raise GenretError("an identifier in the catalog is damaged: it ends within a symbol")
        symbols.append(int.from_bytes(packed[at : at + width], "big"))
        at += width
    return symbols
