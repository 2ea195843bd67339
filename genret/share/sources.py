"""Where a bundle is read from: a folder, a tar or zip archive.

Files come one by one, each within its announced size; nothing is left to an archive to unpack itself.
"""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

from genret.errors import GenretError, one_line
from genret.share.contents import MOST_BYTES, MOST_FILES, check_name, check_size

MOST_RATIO = 200
"""An archive that unpacks to more than this many times its size is a bomb; small ones may do as they like."""
SMALL = 10 * 2**20
ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
MOST_HEADER = 2**16
_PIECE = 2**20


class Listing(dict[str, int]):
    """Path and size of every file; each is checked as it comes, before anything of it is read."""

    def __init__(self, source: str, most: int = MOST_BYTES):
        super().__init__()
        self._source, self._most, self._total = source, min(most, MOST_BYTES), 0

    def add(self, name: str, size: int) -> None:
        check_name(name)
        check_size(name, size)
        if name in self:
            raise GenretError(f"{self._source}: {name} is there twice")
        self[name] = size
        self._total += size
        if self._total > self._most:
            raise GenretError(
                f"{self._source} unpacks to more than {self._most:,} bytes, far too much for its size; nothing was "
                "taken from it"
            )
        if len(self) > MOST_FILES:
            raise GenretError(f"{self._source} has more than {MOST_FILES:,} files; nothing was taken from it")


class Source(ABC):
    """Files of a bundle that somebody else made."""

    name: str
    """As people gave it."""
    revision: str | None = None
    """The commit, on the hub."""

    @abstractmethod
    def listing(self) -> Listing:
        """Path and size in bytes of every file. Raises for links, devices and paths that lead out."""

    @abstractmethod
    def fetch(self, sizes: dict[str, int], folder: Path) -> None:
        """Writes these files below `folder`, which is new."""


def is_archive(name: str) -> bool:
    return name.lower().endswith(ARCHIVES)


class FolderSource(Source):
    def __init__(self, folder: Path):
        self.name, self._folder = str(folder), folder

    def listing(self) -> Listing:
        found = Listing(self.name)
        for path in sorted(self._folder.rglob("*")):
            name, kind = path.relative_to(self._folder).as_posix(), path.lstat().st_mode
            if stat.S_ISDIR(kind):
                continue
            if not stat.S_ISREG(kind):
                raise GenretError(f"{self.name}: {name} is {_kind(kind)}; bundles hold plain files only")
            found.add(name, path.lstat().st_size)
        return found

    def fetch(self, sizes: dict[str, int], folder: Path) -> None:
        for name, size in sizes.items():
            with (self._folder / name).open("rb") as stream:
                write_stream(stream, folder / name, size, name)


class _BoundedInfo(tarfile.TarInfo):
    """A header of a tar archive; tarfile reads long names into memory, whatever size they announce."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        made = super().frombuf(buf, encoding, errors)
        if made.type not in tarfile.REGULAR_TYPES and made.size > MOST_HEADER:
            raise GenretError(f"a header of this archive announces {made.size:,} bytes; nothing was taken from it")
        return made


class TarSource(Source):
    def __init__(self, file: Path):
        self.name, self._file = str(file), file

    @contextmanager
    def _open(self) -> Iterator[tarfile.TarFile]:
        try:
            with self._file.open("rb") as stream:
                packed = stream.read(2) == b"\x1f\x8b"
            with tarfile.open(self._file, "r:gz" if packed else "r:", tarinfo=_BoundedInfo) as archive:
                yield archive
        except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
            raise GenretError(f"{self.name} is no archive that can be read ({one_line(error)})") from None

    def listing(self) -> Listing:
        found = Listing(self.name, _limit(self._file))
        with self._open() as archive:
            for member in archive:  # sizes are checked before the next header is sought
                if member.isdir():
                    continue
                if not member.isreg():
                    what = "a link" if member.islnk() or member.issym() else "a device or a pipe"
                    raise GenretError(f"{self.name}: {member.name} is {what}; bundles hold plain files only")
                found.add(member.name, member.size)
        return found

    def fetch(self, sizes: dict[str, int], folder: Path) -> None:
        with self._open() as archive:
            for member in archive:
                if member.isreg() and member.name in sizes and (stream := archive.extractfile(member)):
                    write_stream(stream, folder / member.name, sizes[member.name], member.name)


class ZipSource(Source):
    def __init__(self, file: Path):
        self.name, self._file = str(file), file

    @contextmanager
    def _open(self) -> Iterator[zipfile.ZipFile]:
        try:
            with zipfile.ZipFile(self._file) as archive:
                yield archive
        except (
            zipfile.BadZipFile,
            OSError,
            EOFError,
            zlib.error,
            ValueError,
            RuntimeError,
            NotImplementedError,
        ) as error:
            raise GenretError(f"{self.name} is no archive that can be read ({one_line(error)})") from None

    def listing(self) -> Listing:
        found = Listing(self.name, _limit(self._file))
        with self._open() as archive:
            for member in archive.infolist():
                kind = member.external_attr >> 16
                if member.is_dir():
                    continue
                if stat.S_IFMT(kind) not in (0, stat.S_IFREG):
                    raise GenretError(f"{self.name}: {member.filename} is {_kind(kind)}; bundles hold plain files only")
                found.add(member.filename, member.file_size)
        return found

    def fetch(self, sizes: dict[str, int], folder: Path) -> None:
        with self._open() as archive:
            for name, size in sizes.items():
                with archive.open(name) as stream:
                    write_stream(stream, folder / name, size, name)


def write_stream(stream: IO[bytes] | Any, path: Path, size: int, name: str) -> None:
    """Writes exactly `size` bytes to a new file; more or fewer are an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    left = size
    with path.open("xb") as out:
        while piece := stream.read(min(_PIECE, left + 1)):
            left -= len(piece)
            if left < 0:
                break
            out.write(piece)
    if left:
        raise GenretError(f"{name} has {'more' if left < 0 else 'fewer'} bytes than the {size:,} announced")


def _limit(file: Path) -> int:
    return max(SMALL, MOST_RATIO * file.stat().st_size)


def _kind(mode: int) -> str:
    return "a link" if stat.S_ISLNK(mode) else "a device or a pipe"
