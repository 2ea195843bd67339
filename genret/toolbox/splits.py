"""What datasets share: captions, and which image belongs to which split. Reads no images."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import model_validator

from genret.api import Config, Dataset, Record
from genret.errors import GenretError

SCALARS = (str, int, float, bool)
CARVED = "dev"
"""The name of a development split that is sampled from the training images."""


class NamedSplits(Config):
    """Which of a dataset's splits is used for what."""

    train_split: str = "train"
    """The training split."""
    dev_split: str | None = None
    """The split for model selection and early stopping; null: some of the training images, as `dev`."""
    test_split: str = "test"
    """The split that is searched."""

    @model_validator(mode="after")
    def _disjoint(self) -> Any:
        named = (self.train_split, self.dev_split or CARVED, self.test_split)
        if len(set(named)) < 3:
            raise ValueError(f"train_split, dev_split and test_split must differ, not {', '.join(named)}")
        return self


class SplitDataset(Dataset):
    """A dataset whose options name its splits."""

    Config = NamedSplits
    config: NamedSplits

    def __init__(self, config: Any = None, **context: Any):
        super().__init__(config, **context)
        self.train_split = self.config.train_split
        self.dev_split = self.config.dev_split or CARVED
        self.test_split = self.config.test_split


def clean_caption(text: str) -> str:
    """One line, single spaces."""
    return " ".join(text.split())


def clean_captions(texts: Iterable[str]) -> tuple[str, ...]:
    """Without empty captions. Duplicates stay: each is a query of the published evaluations."""
    return tuple(filter(None, map(clean_caption, texts)))


def scalars(values: dict[str, Any]) -> dict[str, Any]:
    """The metadata that can be stored and filtered; nested values, nulls and numbers that are none are dropped."""
    return {key: value for key, value in values.items() if isinstance(value, SCALARS) and _is_finite(value)}


def _is_finite(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def hashed(image_id: str, seed: int) -> float:
    """A number in [0, 1) that depends only on its arguments: adding images moves no other image to another split."""
    digest = hashlib.sha256(f"{seed}:{image_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def carve(
    records: Iterable[Record], split: str, dev: bool, fraction: float, seed: int, where: Path | str
) -> Iterator[Record]:
    """Splits the training images `records`: the development split if `dev`, else the rest.

    Raises an error that names `split` if there are images but none in this split.
    """
    total = 0
    found = False
    for record in records:
        total += 1
        if (hashed(record.image_id, seed) < fraction) == dev:
            found = True
            yield record
    if total and not found:
        change = "raise dataset.dev_fraction or set dataset.dev_split" if dev else "lower dataset.dev_fraction"
        raise GenretError(
            f"the split '{split}' of {where} has no images: of {total:,} training images a share of {fraction:g} is "
            f"held out for development, which here is {'none' if dev else 'all'}; {change}"
        )


def nonempty(records: Iterator[Record], split: str, where: Path | str, hint: str = "") -> Iterator[Record]:
    """The same records; an error if there are none."""
    first = next(records, None)
    if first is None:
        raise GenretError(f"the split '{split}' of {where} has no images" + (f"; {hint}" if hint else ""))
    yield from chain([first], records)
