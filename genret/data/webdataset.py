"""Tar shards as the webdataset library and CLIP_benchmark write them, read from local disk.

A sample is a run of members that share the name before the first dot: `s0000000.webp`, `s0000000.txt` (captions, one a
line), `s0000000.json` (metadata). Everything else inside, pickles above all, is never looked at.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections import OrderedDict
from collections.abc import Iterator
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from pydantic import Field, model_validator

from genret import interfaces
from genret.data.images import MAX_BYTES, is_image_name
from genret.data.splits import clean_captions, hashed, local_folder, nonempty, scalars
from genret.errors import BadImage, GenretError, UnknownName
from genret.interfaces import Dataset, Record

MAX_TEXT_BYTES = 2**20
MAX_HEADER_BYTES = 2**20
"""Of a tar member: long names and extended headers may claim any size."""
MAX_SHARDS = 100_000
REMEMBERED_SHARDS = 32
"""Shards whose members' places are kept for `read`; a shard usually has 10,000 or fewer."""


class WebDataset(Dataset):
    class Config(interfaces.Config):
        root: Path
        """Folder of the shards."""
        train: str = "train/*.tar"
        """Shards of split `train` below `root`: wildcards and braces, e.g. `train-{0000..0127}.tar`."""
        dev: str | None = None
        """Shards of split `dev`; null: `dev_fraction` of the training images, chosen by a hash of their ids."""
        test: str = "test/*.tar"
        """Shards of split `test`, the one that is searched."""
        dev_fraction: float = Field(0.05, gt=0, lt=1)
        """Share of the training images that become `dev`, when `dev` is null."""
        split_seed: int = 0
        """Which images these are; not the seed of the training."""
        caption_suffix: str = "txt"
        """Suffix of the members with captions, one a line."""

        @model_validator(mode="after")
        def _different(self) -> Any:
            if len({self.train, self.dev, self.test}) < 3:
                raise ValueError("train, dev and test must name different shards")
            return self

    config: WebDataset.Config

    def __init__(self, config: Any = None, **context: Any):
        super().__init__(config, **context)
        self._places: OrderedDict[str, dict[str, _Place]] = OrderedDict()

    def records(self, split: str) -> Iterator[Record]:
        splits = (self.train_split, self.dev_split, self.test_split)
        if split not in splits:
            raise UnknownName("split", split, splits)
        yield from nonempty(self._chosen(split), split, self._root, "the shards hold no images")

    def read(self, record: Record) -> bytes:
        shard, colon, member = record.uri.rpartition(".tar:")
        place = self._members(shard + ".tar").get(member) if colon else None
        if place is None:
            raise BadImage(f"{record.uri} is no image in a tar shard")
        return place.read(Path(shard + ".tar"), record.uri, MAX_BYTES)

    def _chosen(self, split: str) -> Iterator[Record]:
        config = self.config
        if config.dev is not None or split == self.test_split:
            pattern = {self.train_split: config.train, self.dev_split: config.dev, self.test_split: config.test}[split]
            yield from self._stream(pattern or "")
            return
        for record in self._stream(config.train):
            if (hashed(record.image_id, config.split_seed) < config.dev_fraction) == (split == self.dev_split):
                yield record

    def _stream(self, pattern: str) -> Iterator[Record]:
        for shard in _shards(self._root, pattern):
            relative = shard.relative_to(self._root).as_posix().removesuffix(".tar")
            for sample in self._samples(shard):
                if sample.image is not None:
                    uri = f"{shard}:{sample.image.member}"
                    yield Record(f"{relative}/{sample.key}", uri, sample.captions, sample.metadata)

    def _samples(self, shard: Path) -> Iterator[_Sample]:
        seen: set[str] = set()
        sample: _Sample | None = None
        with shard.open("rb") as stream:
            for place in _scan(shard):
                folder, name = os.path.split(place.member)
                base, _, suffix = name.partition(".")
                key = f"{folder}/{base}" if folder else base
                if sample is None or key != sample.key:
                    if sample is not None:
                        yield sample
                    if key in seen:
                        raise GenretError(
                            f"{shard} holds two samples named {key}; the members of one must be neighbours"
                        )
                    seen.add(key)
                    sample = _Sample(key)
                sample = self._with(sample, suffix.lower(), place, shard, stream)
        if sample is not None:
            yield sample

    def _with(self, sample: _Sample, suffix: str, place: _Place, shard: Path, stream: IO[bytes]) -> _Sample:
        """The sample with one more member."""
        if suffix == self.config.caption_suffix:
            return sample._replace(captions=clean_captions(_text(place, shard, stream).splitlines()))
        if suffix == "json":
            try:
                values = json.loads(_text(place, shard, stream))
            except (ValueError, RecursionError) as error:
                raise GenretError(f"{shard}:{place.member} is no JSON: {error}") from error
            return sample._replace(metadata=scalars(values) if isinstance(values, dict) else {})
        if is_image_name(place.member) and sample.image is None:
            return sample._replace(image=place)
        return sample

    def _members(self, shard: str) -> dict[str, _Place]:
        """Where the images of a shard lie, by member name."""
        if shard not in self._places:
            path = Path(shard)
            if not path.is_relative_to(self._root):
                raise BadImage(f"{shard} is not below {self._root}")
            self._places[shard] = {place.member: place for place in _scan(path) if is_image_name(place.member)}
            if len(self._places) > REMEMBERED_SHARDS:
                self._places.popitem(last=False)
        self._places.move_to_end(shard)
        return self._places[shard]

    @cached_property
    def _root(self) -> Path:
        return local_folder(self.config.root)


class _Place(NamedTuple):
    member: str
    offset: int
    size: int

    def read(self, shard: Path, name: str, limit: int, stream: IO[bytes] | None = None) -> bytes:
        if self.size > limit:
            raise BadImage(f"{name} has {self.size:,} bytes, more than the {limit:,} allowed")
        if stream is None:
            try:
                with shard.open("rb") as opened:
                    return self.read(shard, name, limit, opened)
            except OSError as error:
                raise BadImage(f"{shard} cannot be read: {error.strerror}") from error
        stream.seek(self.offset)
        return stream.read(self.size)


class _Sample(NamedTuple):
    key: str
    image: _Place | None = None
    captions: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}


class _Headers:
    """What tarfile may read of a shard: headers only, never more than `MAX_HEADER_BYTES` at once."""

    def __init__(self, stream: IO[bytes]):
        self._stream = stream
        self.seek = stream.seek
        self.tell = stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims {size:,} bytes")
        return self._stream.read(size)


def _scan(shard: Path) -> Iterator[_Place]:
    """The ordinary files of a shard, in order; links, devices and sparse files are left out."""
    try:
        # "r:": compressed shards cannot be read from the middle
        with shard.open("rb") as stream, tarfile.open(fileobj=cast(IO[bytes], _Headers(stream)), mode="r:") as tar:
            while (member := tar.next()) is not None:
                cast(Any, tar).members.clear()  # tarfile would keep them all
                if member.isreg() and not member.issparse():
                    name = member.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                    yield _Place(name, member.offset_data, member.size)
            stream.seek(tar.offset)
            if stream.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                # tarfile takes a damaged header, or a missing end, for the end
                raise tarfile.ReadError(f"no end mark at byte {tar.offset:,}")
    except OSError as error:
        raise GenretError(f"the shard {shard} cannot be read: {error.strerror or error}") from error
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise GenretError(f"the shard {shard} is damaged or no uncompressed tar file: {error}") from error


def _text(place: _Place, shard: Path, stream: IO[bytes]) -> str:
    name = f"{shard}:{place.member}"
    if place.size > MAX_TEXT_BYTES:
        raise GenretError(f"{name} has {place.size:,} bytes, more than the {MAX_TEXT_BYTES:,} allowed for text")
    try:
        return place.read(shard, name, MAX_TEXT_BYTES, stream).decode("utf-8")
    except UnicodeDecodeError as error:
        raise GenretError(f"{name} is no UTF-8 text: {error}") from error


def _shards(root: Path, pattern: str) -> list[Path]:
    """Existing shards of a pattern, numbers in numeric order (2.tar before 10.tar)."""
    found: list[Path] = []
    for expanded in _braces(pattern):
        if Path(expanded).is_absolute() or ".." in Path(expanded).parts:
            raise GenretError(f"the shards '{pattern}' must lie below {root}")
        matches = sorted(root.glob(expanded), key=_natural) if re.search(r"[*?\[]", expanded) else [root / expanded]
        found.extend(path for path in matches if path not in found)
    for shard in found:
        if not shard.is_file():
            raise GenretError(
                f"the shard {shard} does not exist; complete the data set or correct the pattern '{pattern}'"
            )
    if not found:
        raise GenretError(f"no shard {root / pattern} exists; set dataset.root, train, dev and test")
    for folder in {shard.parent for shard in found}:
        _check_number(folder, sum(shard.parent == folder for shard in found))
    return found


def _check_number(folder: Path, count: int) -> None:
    """CLIP_benchmark notes the number of shards beside them: a download that broke off is noticed."""
    noted = folder / "nshards.txt"
    if noted.is_file():
        text = noted.read_text(errors="replace")[:20].strip()
        if text != str(count):
            raise GenretError(f"{noted} says {text} shards, there are {count}; complete the download")


def _braces(pattern: str) -> list[str]:
    """`a-{08..10}.tar` → a-08.tar, a-09.tar, a-10.tar; `{a,b}.tar` → a.tar, b.tar."""
    parts: list[list[str]] = []
    total = 1
    for literal, low, high, words in re.findall(r"([^{}]+)|\{(\d+)\.\.(\d+)\}|\{([^{}]*)\}", pattern):
        if literal:
            parts.append([literal])
        elif low:
            if int(high) - int(low) >= MAX_SHARDS:
                raise GenretError(f"the shards '{pattern}' are more than {MAX_SHARDS:,}")
            parts.append([str(number).zfill(len(low)) for number in range(int(low), int(high) + 1)])
        else:
            parts.append(words.split(","))
        total *= len(parts[-1])
    if total > MAX_SHARDS:
        raise GenretError(f"the shards '{pattern}' are more than {MAX_SHARDS:,}")
    return ["".join(choice) for choice in product(*parts)]


def _natural(path: Path) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", str(path)) if part]
