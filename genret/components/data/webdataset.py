"""Tar shards as the webdataset library and CLIP_benchmark write them, read from local disk.

A sample is a run of members that share the name before the first dot: `s0000000.webp`, `s0000000.txt` (captions, one a
line), `s0000000.json` (metadata, or captions), `s0000000.cls` (a class, by number). Everything else, pickles above all,
is never read. CLIP_benchmark's layout is the default: `train/0.tar`, `test/0.tar`, …, beside them `nshards.txt`, and
above them `classnames.txt`, whose names become metadata.
"""

from __future__ import annotations

import json
import os
import re
from collections import OrderedDict
from collections.abc import Iterator
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import IO, Any, NamedTuple

from pydantic import Field, model_validator

from genret import api
from genret.api import Dataset, Record
from genret.components.data.paths import local_folder
from genret.components.data.tar import Member, scan, text_of
from genret.components.data.text import MAX_TEXT_BYTES, captions_in, open_text
from genret.errors import BadImage, GenretError, UnknownName
from genret.kit.images import MAX_BYTES, is_image_name, is_raw, unreadable
from genret.toolbox.splits import carve, clean_captions, nonempty, scalars

MAX_SHARDS = 100_000
REMEMBERED_SHARDS = 32
"""Number of shards whose member offsets are cached for `read`; a shard usually has 10,000 or fewer."""


class WebDataset(Dataset):
    class Config(api.Config):
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
        """Seed of the choice of these images; independent of the training seed."""
        image_suffix: str | None = None
        """Suffix of the image if samples have several, such as `input.png`; null: samples have only one."""
        caption_suffix: str = "txt"
        """Suffix of the members with captions, one a line."""
        caption_key: str = "caption"
        """Key of the `.json` members with a caption, or a list of them, for samples without captions of their own."""

        @model_validator(mode="after")
        def _different(self) -> Any:
            if len({self.train, self.dev, self.test}) < 3:
                raise ValueError("train, dev and test must name different shards")
            return self

    config: WebDataset.Config

    def __init__(self, config: Any = None, **context: Any):
        super().__init__(config, **context)
        self._places: OrderedDict[str, dict[str, Member]] = OrderedDict()

    def records(self, split: str) -> Iterator[Record]:
        splits = (self.train_split, self.dev_split, self.test_split)
        if split not in splits:
            raise UnknownName("split", split, splits)
        yield from nonempty(self._chosen(split), split, self._root, "the shards hold no images")

    def read(self, record: Record) -> bytes:
        shard, colon, member = record.uri.rpartition(".tar:")
        image = self._members(shard + ".tar").get(member) if colon else None
        if image is None:
            raise BadImage(f"{record.uri} is no image in a tar shard")
        return image.read(Path(shard + ".tar"), record.uri, MAX_BYTES)

    def _chosen(self, split: str) -> Iterator[Record]:
        config = self.config
        if config.dev is not None or split == self.test_split:
            pattern = {self.train_split: config.train, self.dev_split: config.dev, self.test_split: config.test}[split]
            yield from self._stream(pattern or "")
            return
        train, dev = self._stream(config.train), split == self.dev_split
        yield from carve(train, split, dev, config.dev_fraction, config.split_seed, self._root)

    def _stream(self, pattern: str) -> Iterator[Record]:
        for shard in _shards(self._root, pattern):
            relative = shard.relative_to(self._root).as_posix().removesuffix(".tar")
            for sample in self._samples(shard):
                if sample.image is not None:
                    uri = f"{shard}:{sample.image.name}"
                    captions = sample.captions or sample.told
                    yield Record(f"{relative}/{sample.key}", uri, captions, sample.metadata)

    def _samples(self, shard: Path) -> Iterator[_Sample]:
        seen: set[str] = set()
        sample: _Sample | None = None
        with shard.open("rb") as stream:
            for member in scan(shard):
                folder, name = os.path.split(member.name)
                if name.startswith(".") or "__MACOSX" in folder.split("/"):
                    continue  # macOS adds ._a.png to every a.png; webdataset also skips hidden files
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
                sample = self._with(sample, suffix.lower(), member, shard, stream)
        if sample is not None:
            yield sample

    def _with(self, sample: _Sample, suffix: str, member: Member, shard: Path, stream: IO[bytes]) -> _Sample:
        """The sample with one more member."""
        if suffix == self.config.caption_suffix:
            return sample._replace(captions=clean_captions(text_of(member, shard, stream).splitlines()))
        if suffix == "json":
            try:
                values = json.loads(text_of(member, shard, stream))
            except (ValueError, RecursionError) as error:
                raise GenretError(f"{shard}:{member.name} is no JSON: {error}") from error
            values = values if isinstance(values, dict) else {}
            told = self._captions_in(values, f"{shard}:{member.name}")
            return sample._replace(told=told, metadata=sample.metadata | scalars(values))
        if suffix == "cls":
            return sample._replace(metadata=sample.metadata | {"class": self._class(text_of(member, shard, stream))})
        wanted = self.config.image_suffix
        raw = is_raw(member.name)  # of a camera's pair of files, the other one
        if suffix == wanted.lower() if wanted else is_image_name(member.name) and not raw:
            return sample._replace(image=self._only(sample, member, shard))
        if sample.image is None and (unreadable(member.name) or (raw and not wanted)):
            return sample._replace(image=member)  # reported when it is decoded
        return sample

    def _only(self, sample: _Sample, member: Member, shard: Path) -> Member:
        """The sample's image: a second image, which may belong to another sample, is rejected."""
        first = sample.image
        if first is not None and unreadable(first.name) is None and not is_raw(first.name):
            raise GenretError(
                f"{shard} has two images of one sample, {first.name} and {member.name}: its name ends at the first "
                "dot; write names without further dots, or, if both belong together, set dataset.image_suffix to the "
                "one that is searched"
            )
        return member

    def _captions_in(self, values: dict[str, Any], name: str) -> tuple[str, ...]:
        """Takes the captions out of a sample's JSON: a text or a list of texts."""
        found = values.pop(self.config.caption_key, None)
        if (captions := captions_in(found or [])) is None:
            raise GenretError(f"{name}: '{self.config.caption_key}' is no text and no list of texts")
        return captions

    def _class(self, text: str) -> str:
        """A sample's class: its name in `classnames.txt`, otherwise the text of the file."""
        number = text.strip()[:200]
        return self._class_names[int(number)] if number.isdecimal() and int(number) < len(self._class_names) else number

    @cached_property
    def _class_names(self) -> list[str]:
        file = self._root / "classnames.txt"
        if not file.is_file():
            return []
        try:
            with open_text(file) as stream:
                text = stream.read(MAX_TEXT_BYTES + 1)
        except (OSError, UnicodeError) as error:
            raise GenretError(f"{file} cannot be read: {error}") from error
        if len(text) > MAX_TEXT_BYTES:
            raise GenretError(f"{file} is larger than {MAX_TEXT_BYTES:,} characters and so no list of classes")
        return text.splitlines()

    def _is_image(self, name: str) -> bool:
        wanted = self.config.image_suffix
        return (
            is_image_name(name)
            or unreadable(name) is not None
            or bool(wanted and name.lower().endswith(f".{wanted.lower()}"))
        )

    def _members(self, shard: str) -> dict[str, Member]:
        """The images of a shard, by member name."""
        if shard not in self._places:
            path = Path(shard)
            if not path.is_relative_to(self._root):
                raise BadImage(f"{shard} is not below {self._root}")
            self._places[shard] = {member.name: member for member in scan(path) if self._is_image(member.name)}
            if len(self._places) > REMEMBERED_SHARDS:
                self._places.popitem(last=False)
        self._places.move_to_end(shard)
        return self._places[shard]

    @cached_property
    def _root(self) -> Path:
        return local_folder(self.config.root)


class _Sample(NamedTuple):
    key: str
    image: Member | None = None
    captions: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    """Captions of its JSON"""
    metadata: dict[str, Any] = {}


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
    """Compares with CLIP_benchmark's number of shards, to detect an incomplete download."""
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
