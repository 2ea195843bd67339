"""A data set of the `datasets` library, by hub name or local path; needs `pip install genret[datasets]`.

Tables are memory-mapped, and images are passed on undecoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from genret.api import Record
from genret.components.data.paths import local_path
from genret.components.data.text import captions_in
from genret.errors import BadImage, GenretError, UnknownName
from genret.kit.images import read_bytes
from genret.toolbox.splits import CARVED, NamedSplits, SplitDataset, carve, nonempty, scalars

_ROWS_AT_ONCE = 1000


class HuggingFaceDataset(SplitDataset):
    class Config(NamedSplits):
        name: str = Field(min_length=1)
        """Name on the hub (`owner/name`), or a local folder of `save_to_disk`, images or parquet files."""
        subset: str | None = None
        """The hub's configuration name, where a data set has several."""
        revision: str | None = None
        """Commit, tag or branch on the hub; a commit makes the experiment repeatable."""
        image_column: str = "image"
        """Column with the image."""
        caption_column: str = "caption"
        """Column with a caption or a list of captions."""
        metadata_columns: list[str] = []
        """Columns kept as metadata of the images."""
        dev_fraction: float = Field(0.05, gt=0, lt=1)
        """Share of the training images that become `dev`, when `dev_split` is null."""
        split_seed: int = 0
        """Seed of the choice of these images; independent of the training seed."""

    config: HuggingFaceDataset.Config

    def records(self, split: str) -> Iterator[Record]:
        if split == CARVED and self.config.dev_split is None:
            source = self.config.train_split
        elif split in self._tables:
            source = split
        else:
            raise UnknownName("split", split, self._tables, f"the splits of {self.config.name}")
        config = self.config
        found = self._rows(source)
        if config.dev_split is None and source == config.train_split:
            found = carve(found, split, split == CARVED, config.dev_fraction, config.split_seed, config.name)
        yield from nonempty(found, split, config.name)

    def read(self, record: Record) -> bytes:
        source, _, row = record.image_id.rpartition("/")
        table = self._tables.get(source)
        if table is None or not row.isdecimal() or int(row) >= len(table):
            raise BadImage(f"{record.image_id} is no image of {self.config.name}")
        picture = table[int(row)][self.config.image_column]
        if not isinstance(picture, dict) or not (picture.get("bytes") or picture.get("path")):
            raise BadImage(f"{record.uri} has no picture")
        return picture["bytes"] or read_bytes(Path(picture["path"]))

    def _rows(self, split: str) -> Iterator[Record]:
        """Captions and metadata of a split; the image column stays on disk."""
        config = self.config
        table = self._tables[split].select_columns([config.caption_column, *config.metadata_columns])
        number = 0
        for rows in table.iter(batch_size=_ROWS_AT_ONCE):
            for offset, captions in enumerate(rows[config.caption_column]):
                if (texts := captions_in(captions)) is None:
                    raise GenretError(
                        f"row {number} of {config.name} {split}: '{config.caption_column}' is no text and no list of "
                        "texts; set dataset.caption_column"
                    )
                metadata = scalars({column: rows[column][offset] for column in config.metadata_columns})
                uri = f"{config.name}:{split}/{number}"
                yield Record(f"{split}/{number}", uri, texts, metadata)
                number += 1

    @cached_property
    def _tables(self) -> dict[str, Any]:
        """The splits, by name, with undecoded images."""
        datasets, config = _library(), self.config
        loaded = _load(config)
        tables = {config.train_split: loaded} if isinstance(loaded, datasets.Dataset) else dict(loaded)
        if config.dev_split is None and CARVED in tables:
            raise GenretError(f"{config.name} has a split '{CARVED}' of its own; set dataset.dev_split to a split")
        for split, table in tables.items():
            for column in (config.image_column, config.caption_column, *config.metadata_columns):
                if column not in table.column_names:
                    raise UnknownName("column", column, table.column_names, f"the columns of {config.name} {split}")
            if not isinstance(table.features[config.image_column], datasets.Image):
                raise GenretError(f"the column '{config.image_column}' of {config.name} {split} holds no pictures")
            tables[split] = table.cast_column(config.image_column, datasets.Image(decode=False))
        return tables


def _library() -> Any:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise GenretError("data sets of Hugging Face need a package: pip install genret[datasets]") from error
    return datasets


def _load(config: HuggingFaceDataset.Config) -> Any:
    datasets = _library()
    folder = local_path(config.name)
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            return datasets.load_from_disk(str(folder))
        name = str(folder) if folder.is_dir() else config.name
        return datasets.load_dataset(name, config.subset, revision=config.revision)
    except Exception as error:  # the library raises many kinds: network, parquet, file system
        reason = " ".join(str(error).split()) or type(error).__name__
        raise GenretError(f"the data set {config.name} cannot be loaded: {reason}") from error
