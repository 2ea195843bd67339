"""The members of a tar file, found without unpacking: names, offsets and sizes of regular files.

Shards may be hostile: headers are read in bounded pieces, links and devices are skipped, nothing is written, and names
are never used as paths.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from genret.components.data.text import MAX_TEXT_BYTES, decode_text
from genret.errors import BadImage, GenretError

MAX_HEADER_BYTES = 2**20
"""Limit for a tar member's headers: long names and extended headers may claim any size."""


class Member(NamedTuple):
    """A regular file of a shard, with its offset."""

    name: str
    offset: int
    size: int

    def read(self, shard: Path, shown: str, limit: int, stream: IO[bytes] | None = None) -> bytes:
        """Its bytes, from the shard or from an open stream of it; `BadImage`, naming it `shown`, beyond `limit`."""
        if self.size > limit:
            raise BadImage(f"{shown} has {self.size:,} bytes, more than the {limit:,} allowed")
        if stream is None:
            try:
                with shard.open("rb") as opened:
                    return self.read(shard, shown, limit, opened)
            except OSError as error:
                raise BadImage(f"{shard} cannot be read: {error.strerror}") from error
        stream.seek(self.offset)
        return stream.read(self.size)


class _Headers:
    """Limits what tarfile reads of a shard: headers only, at most `MAX_HEADER_BYTES` at once."""

    def __init__(self, stream: IO[bytes]):
        self._stream = stream
        self.seek = stream.seek
        self.tell = stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims {size:,} bytes")
        return self._stream.read(size)


def scan(shard: Path) -> Iterator[Member]:
    """The regular files of a shard, in order; links, devices and sparse files are left out."""
    try:
        # "r:": compressed shards cannot be read from the middle
        with shard.open("rb") as stream, tarfile.open(fileobj=cast(IO[bytes], _Headers(stream)), mode="r:") as tar:
            while (member := tar.next()) is not None:
                cast(Any, tar).members.clear()  # tarfile would keep them all
                if member.isreg() and not member.issparse():
                    name = member.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                    yield Member(name, member.offset_data, member.size)
            stream.seek(tar.offset)
            if stream.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                # tarfile treats a damaged header or a missing end as the end
                raise tarfile.ReadError(f"no end mark at byte {tar.offset:,}")
    except OSError as error:
        raise GenretError(f"the shard {shard} cannot be read: {error.strerror or error}") from error
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise GenretError(f"the shard {shard} is damaged or no uncompressed tar file: {error}") from error


def text_of(member: Member, shard: Path, stream: IO[bytes]) -> str:
    """A small member as text; rejected if larger than a caption can be."""
    name = f"{shard}:{member.name}"
    if member.size > MAX_TEXT_BYTES:
        raise GenretError(f"{name} has {member.size:,} bytes, more than the {MAX_TEXT_BYTES:,} allowed for text")
    return decode_text(member.read(shard, name, MAX_TEXT_BYTES, stream), name)
