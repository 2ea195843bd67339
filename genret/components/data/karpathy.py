"""Data sets in the JSON shape of Andrej Karpathy's splits: Flickr8k, Flickr30k, MS-COCO and others in this format.

Only names and captions are held in memory; the images stay in their folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from genret.api import Record
from genret.components.data.paths import below, check_present, local_folder
from genret.components.data.text import read_json
from genret.errors import GenretError, UnknownName
from genret.kit.images import read_bytes
from genret.toolbox.splits import CARVED, NamedSplits, SplitDataset, clean_captions, hashed, nonempty

KNOWN_COUNTS = {
    "flickr8k": {"train": 6000, "val": 1000, "test": 1000},
    "flickr30k": {"train": 29000, "val": 1014, "test": 1000},
    "coco": {"train": 82783, "restval": 30504, "val": 5000, "test": 5000},
}
"""Images per split of the published files, by their "dataset" field."""


class _Image(NamedTuple):
    name: str
    """Path below the images folder."""
    split: str
    captions: str
    """Joined by newlines, which takes a fifth of the memory of separate strings."""


class KarpathyDataset(SplitDataset):
    class Config(NamedSplits):
        root: Path
        """Folder of the JSON file and the images folder."""
        file: str | None = None
        """The JSON file's name; null: the one `dataset*.json` in `root`."""
        images: str = "images"
        """The images folder's name."""
        test_split: str = "test"
        """The split to search; `val` for copies of Flickr8k without a test split."""
        dev_images: int = Field(500, ge=1)
        """How many training images become the development split `dev`, when `dev_split` is null."""
        dev_seed: int = 0
        """Seed of the choice of these images; independent of the training seed."""
        use_restval: bool = True
        """Count COCO's `restval` images as `train`, as the literature does."""
        expect: dict[str, int] | None = None
        """Images that each split must have; null: the published counts of Flickr8k, Flickr30k and COCO; {}: any."""

    config: KarpathyDataset.Config

    def records(self, split: str) -> Iterator[Record]:
        if split not in self._splits:
            raise UnknownName("split", split, self._splits, f"the splits of {self._file}")
        yield from nonempty(map(self._record, self._splits[split]), split, self._file)

    def read(self, record: Record) -> bytes:
        return read_bytes(Path(record.uri))

    def _record(self, image: _Image) -> Record:
        uri = str(self._folder / self._spelled.get(image.name, image.name))
        return Record(Path(image.name).name, uri, tuple(image.captions.split("\n")))

    @cached_property
    def _file(self) -> Path:
        root = local_folder(self.config.root)
        if self.config.file is not None:
            return root / self.config.file
        found = sorted(root.glob("dataset*.json"))
        if len(found) != 1:
            names = ", ".join(path.name for path in found) or "none"
            raise GenretError(f"{root} must have one file dataset*.json, it has {names}; set dataset.file")
        return found[0]

    @property
    def _folder(self) -> Path:
        return self._file.parent / self.config.images

    @cached_property
    def _splits(self) -> dict[str, list[_Image]]:
        name, images = _parse(self._file, self._folder)
        splits: dict[str, list[_Image]] = {}
        for image in images:
            split = "train" if image.split == "restval" and self.config.use_restval else image.split
            splits.setdefault(split, []).append(image)
        self._check_names(images)
        self._check_counts(name, {split: len(members) for split, members in splits.items()})
        wanted = sorted(
            {self.config.train_split, self.config.test_split, self.config.dev_split or self.config.train_split}
        )
        for split in wanted:
            if split not in splits:
                has = ", ".join(f"{name} ({len(members):,})" for name, members in splits.items())
                raise GenretError(
                    f"{self._file} has no split '{split}', it has {has}; "
                    "set dataset.train_split, dev_split and test_split to these"
                )
        self._spelled = check_present(
            self._folder, (image.name for split in wanted for image in splits[split]), self._file
        )
        if self.config.dev_split is None:
            self._carve(splits)
        return splits

    def _check_names(self, images: list[_Image]) -> None:
        """File names are the image ids: a duplicate would put an image into two splits."""
        name, count = Counter(Path(image.name).name for image in images).most_common(1)[0]
        if count > 1:
            raise GenretError(f"{self._file} names the image {name} {count} times; every image may occur once")

    def _check_counts(self, name: str, counts: dict[str, int]) -> None:
        expected, source = self.config.expect, "dataset.expect asks for"
        if expected is None:
            known = dict(KNOWN_COUNTS.get(name, {}))
            if self.config.use_restval and "restval" in known:
                known["train"] += known.pop("restval")
            # a copy may lack a split, as Flickr8k's without test; only using that split is an error
            expected = {split: count for split, count in known.items() if split in counts}
            source = f"the published {name} has"
        for split, count in expected.items():
            if counts.get(split, 0) != count:
                raise GenretError(
                    f"split '{split}' of {self._file} has {counts.get(split, 0):,} images but {source} {count:,}; "
                    "get the complete file, or set dataset.expect to the counts that you mean ({} for any)"
                )

    def _carve(self, splits: dict[str, list[_Image]]) -> None:
        train, count = splits[self.config.train_split], self.config.dev_images
        if CARVED in splits:
            raise GenretError(f"{self._file} has a split '{CARVED}' of its own; set dataset.dev_split to a split")
        if count >= len(train):
            raise GenretError(
                f"dataset.dev_images is {count:,} but {self._file} has only {len(train):,} training images"
            )
        chosen = set(
            sorted((image.name for image in train), key=lambda name: hashed(name, self.config.dev_seed))[:count]
        )
        splits[CARVED] = [image for image in train if image.name in chosen]
        splits[self.config.train_split] = [image for image in train if image.name not in chosen]


def _parse(file: Path, images_folder: Path) -> tuple[str, list[_Image]]:
    """The "dataset" field and the images."""

    def compact(values: dict[str, Any]) -> Any:
        # called for every object, innermost first: tokens and ids are dropped before the next object is read
        if "raw" in values:
            return values["raw"]
        if "sentences" not in values:
            return values
        name = values.get("filename")
        captions = values["sentences"]
        if not isinstance(name, str) or not name or not isinstance(values.get("split"), str):
            raise GenretError(f'{file}: an image has no "filename" or no "split"')
        if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
            raise GenretError(f'{file}: image {name} has sentences without "raw" text')
        if not (kept := clean_captions(captions)):
            raise GenretError(f"{file}: image {name} has no captions")
        folder = values.get("filepath") or ""
        return _Image(
            below(f"{folder}/{name}" if folder else name, file, images_folder), values["split"], "\n".join(kept)
        )

    parsed = read_json(file, object_hook=compact)
    images = parsed.get("images") if isinstance(parsed, dict) else None
    if not isinstance(images, list) or not images or not all(isinstance(image, _Image) for image in images):
        raise GenretError(
            f'{file} has not Karpathy\'s shape: {{"images": [{{"filename", "split", "sentences"}}, ...]}}'
        )
    name = parsed.get("dataset")
    return name if isinstance(name, str) else "", images
