"""The world as images, a plugin: a data set, and an encoder that looks up an image's vector by its colour.

So components can be tested with real files, a real catalog and a real run, without weights. `new` images are those of
`World.new`; `other` ones are of the same kind, for development.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Literal
from zlib import crc32

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import genret
from genret.api import Dataset, Encoder, Record
from genret.errors import BadImage, UnknownName
from genret.plugin.hookspecs import Register
from genret.testing.world.corpus import PLACES, SUBJECTS, WIDTH, make_world


@genret.hookimpl
def register_datasets(register: Register) -> None:
    register("world", "genret.testing.world.pictures:WorldDataset")


@genret.hookimpl
def register_encoders(register: Register) -> None:
    register("world", "genret.testing.world.pictures:WorldEncoder")


GROUPS = ("train", "new", "other")
NEW, OTHER = range(0, 36, 3), range(1, 36, 3)
"""Training images of which the new and the other ones are variations."""


@cache
def vectors() -> tuple[Tensor, Tensor, Tensor]:
    """(N, D) of each group."""
    world, generator = make_world(), torch.Generator().manual_seed(1)
    near = world.train.features[list(OTHER)]
    other = F.normalize(near + 0.1 * torch.randn(near.shape, generator=generator), dim=-1)
    return world.train.features, world.new.features, other


@cache
def words() -> dict[str, Tensor]:
    """The vector of each caption."""
    train = make_world().train
    assert train.text_features is not None
    return dict(zip(train.captions, train.text_features, strict=True))


def record(group: str, row: int) -> Record:
    """A record with the captions of what the image shows, and its subject and place as metadata."""
    shows = {"train": range(36), "new": NEW, "other": OTHER}[group][row]
    subject, place = SUBJECTS[shows // len(PLACES)], PLACES[shows % len(PLACES)]
    captions = tuple(make_world().train.captions[2 * shows : 2 * shows + 2])
    return Record(f"{group}-{row}", f"{group}-{row}.png", captions, {"subject": subject, "place": place, "row": row})


def png(image_id: str) -> bytes:
    group, _, row = image_id.partition("-")
    if group not in GROUPS or not row.isdigit():
        raise BadImage(f"{image_id}: there is no such picture")
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (int(row), GROUPS.index(group), 0)).save(out, "PNG")
    return out.getvalue()


class WorldDataset(Dataset):
    """36 training images; 12 variations of some are searched, 12 of others are for development."""

    concepts = "seen-concepts"

    def records(self, split: str) -> Iterator[Record]:
        groups = {self.train_split: ("train", 36), self.test_split: ("new", 12), self.dev_split: ("other", 12)}
        if split not in groups:
            raise UnknownName("split", split, groups)
        group, count = groups[split]
        yield from (record(group, row) for row in range(count))

    def read(self, record: Record) -> bytes:
        return png(record.image_id)


class WorldEncoder(Encoder):
    """Known vectors; unknown texts get a fixed direction."""

    def tower_key(self, modality: Literal["image", "text"]) -> str:
        return f"world-{modality}"

    def image_features(self, images: Sequence[Image.Image], view: int = 0) -> Tensor:
        colours = [image.getpixel((0, 0)) for image in images]
        return torch.stack([vectors()[group][row] for row, group, _ in colours])  # type: ignore[misc]

    def text_features(self, texts: Sequence[str]) -> Tensor:
        known = words()
        return torch.stack([known[text] if text in known else _some_direction(text) for text in texts])


def _some_direction(text: str) -> Tensor:
    return F.normalize(torch.randn(WIDTH, generator=torch.Generator().manual_seed(crc32(text.encode()))), dim=-1)
