"""A split of a dataset, as files and as vectors: images and captions are encoded by the towers once and cached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from genret.api import CaptionedImages, Corpus, Dataset, Encoder, Pairs, Progress, Record, Skipped
from genret.errors import BadImage, GenretError
from genret.kit.encode import LEAST_SIDE, ImageItem, encode_images, encode_texts
from genret.kit.feature_cache import FeatureCache
from genret.kit.images import content_hash, decode_image
from genret.plugin.code import tower_key
from genret.train.artifacts import content_key


class Listing(NamedTuple):
    """N images of a split as files, before anything is computed."""

    name: str
    records: list[Record]
    items: list[ImageItem]
    skipped: list[Skipped]
    """Images whose bytes could not be read"""

    @property
    def hashes(self) -> list[str]:
        """sha256 of each image's bytes"""
        return [item.key for item in self.items]

    @property
    def key(self) -> str:
        """Changes with any image, caption or order."""
        return content_key(self.hashes, [list(record.captions) for record in self.records])

    @property
    def pictures(self) -> CaptionedImages:
        captions, owners = _captions(self.records)
        return CaptionedImages([item.load for item in self.items], captions, owners)

    def without(self, hashes: set[str]) -> Listing:
        """The listing without the images with these contents."""
        keep = [row for row, item in enumerate(self.items) if item.key not in hashes]
        return self._replace(records=[self.records[row] for row in keep], items=[self.items[row] for row in keep])


def list_split(dataset: Dataset, name: str) -> Listing:
    """Reads every image's bytes once, to identify it by content; keeps none of them."""
    found = Listing(name, [], [], [])
    for record in dataset.records(name):
        try:
            key = content_hash(dataset.read(record))
        except BadImage as error:
            found.skipped.append(Skipped(record.uri, str(error)))
            continue
        found.records.append(record)
        found.items.append(ImageItem(key, partial(_open, dataset, record), record.uri))
    return found


@dataclass(frozen=True, kw_only=True)
class Split:
    """N images and their T captions; of the images only the vectors are kept."""

    name: str
    records: list[Record]
    hashes: list[str]
    """sha256 of each image's bytes"""
    images: Tensor
    """(N, W, D_image) the towers' vectors of W views"""
    captions: list[str]
    texts: Tensor
    """(T, D_text)"""
    owners: Tensor
    """(T,) the image of each caption"""
    skipped: list[Skipped]

    @property
    def key(self) -> str:
        """Changes with any image, caption or order."""
        return content_key(
            [record.image_id for record in self.records], self.hashes, self.captions, self.owners.tolist()
        )

    @property
    def num_captionless(self) -> int:
        """Number of images without captions"""
        return len(self.records) - len(self.owners.unique())

    def without(self, hashes: set[str]) -> Split:
        """The split without the images with these contents, and without their captions."""
        keep = torch.tensor([content not in hashes for content in self.hashes], dtype=torch.bool)
        captions = keep[self.owners]
        rows, texts = keep.nonzero()[:, 0].tolist(), captions.nonzero()[:, 0].tolist()
        return replace(
            self,
            records=[self.records[row] for row in rows],
            hashes=[self.hashes[row] for row in rows],
            images=self.images[keep],
            captions=[self.captions[row] for row in texts],
            texts=self.texts[captions],
            owners=(keep.cumsum(0) - 1)[self.owners[captions]],
        )

    @property
    def pairs(self) -> Pairs:
        return Pairs(self.images, self.texts, self.owners)


def read_split(listing: Listing, encoder: Encoder, views: int, cache_dir: Path, progress: Progress) -> Split:
    """Streams the split through both towers; unusable images are left out and reported."""
    name, items = listing.name, listing.items
    with FeatureCache.of_tower(cache_dir, tower_key(encoder, "image")) as cache:
        encoded = encode_images(encoder, items, cache, views=views, progress=progress, label=f"{name} pictures")
    skipped = [*listing.skipped, *encoded.skipped]
    rows = encoded.rows.tolist()
    records, hashes = [listing.records[row] for row in rows], [items[row].key for row in rows]
    if not records:
        reason = f"; the first: {skipped[0].reason}" if skipped else ""
        raise GenretError(f"the split '{name}' has no usable picture{reason}")
    captions, owners = _captions(records)
    with FeatureCache.of_tower(cache_dir, tower_key(encoder, "text")) as cache:
        texts = encode_texts(encoder, captions, cache, progress=progress, label=f"{name} captions")
    return Split(
        name=name,
        records=records,
        hashes=hashes,
        images=encoded.features,
        captions=captions,
        texts=texts,
        owners=torch.tensor(owners, dtype=torch.int64),
        skipped=skipped,
    )


def _captions(records: Sequence[Record]) -> tuple[list[str], list[int]]:
    """All captions, and the record of each."""
    captions = [caption for record in records for caption in record.captions]
    owners = [row for row, record in enumerate(records) for _ in record.captions]
    return captions, owners


def _open(dataset: Dataset, record: Record) -> Image.Image:
    """Reads the image again, so that memory need not hold the bytes of all images."""
    return decode_image(dataset.read(record), record.uri, side=LEAST_SIDE)


def text_vectors(
    encoder: Encoder, texts: Sequence[str], cache_dir: Path, device: torch.device, progress: Progress
) -> Tensor:
    """Any captions → (T, D) in the shared space."""
    with FeatureCache.of_tower(cache_dir, tower_key(encoder, "text")) as cache:
        return _project(encode_texts(encoder, texts, cache, progress=progress), encoder.project_captions, device)


def _project(features: Tensor, head: Callable[[Tensor], Tensor], device: torch.device) -> Tensor:
    with torch.no_grad():
        return torch.cat([head(part.to(device)).float().cpu() for part in features.split(8192)])


def corpus_of(split: Split, encoder: Encoder, device: torch.device) -> Corpus:
    """The split in the shared space."""
    flat = _project(split.images.flatten(0, 1), encoder.project_images, device)
    views = flat.view(*split.images.shape[:2], -1)
    return Corpus(
        [record.image_id for record in split.records],
        views[:, 0].contiguous(),
        views if views.shape[1] > 1 else None,
        split.captions,
        _project(split.texts, encoder.project_captions, device) if split.captions else None,
        split.owners,
    )
