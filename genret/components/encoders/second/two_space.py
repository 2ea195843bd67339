"""Two pairs of heads over one or two image towers and two text towers: a space to compare in, and one to be written.

What a language model learns of the space that its query is compared in anyway, the comparison says better. So its codes
come from a second space (`identifier: {type: two-space}`), whose captions are read by a further text tower beside the
first, and whose images may be seen by another image tower: they err in other places, and add what they know. Not in the
paper; figures: docs/results.md.

    image         (z, z′) / √2
    query         (t, 0): search compares with z alone
    caption       (t, t′) / √2: what identifier and teacher learn from
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor

from genret.api import Encoder, FitContext, Pairs
from genret.components.encoders.hf_clip import CLIPText
from genret.components.encoders.hf_vision import HuggingFaceImage
from genret.components.encoders.open_clip import OpenCLIPImage, OpenCLIPText
from genret.components.encoders.paired import PairedEncoder
from genret.components.encoders.sentence import SentenceText
from genret.components.encoders.timm_tower import TimmImage

AnyImage = Annotated[TimmImage | HuggingFaceImage | OpenCLIPImage, Field(discriminator="type")]
BLANK = Image.new("RGB", (32, 32))
"""Tells how many numbers a tower gives."""
READER = "read"
"""Folder of the second space's heads, in that of the first one's."""


class TwoSpaceEncoder(Encoder):
    """Two `paired` encoders over the same images. Vectors are twice as wide as `dim`."""

    num_spaces = 2

    class Config(PairedEncoder.Config):
        reader: Annotated[SentenceText | CLIPText | OpenCLIPText, Field(discriminator="type")] = SentenceText()
        """A further text tower for the second space, in which no query is compared; `backbone.encoder` names both."""
        reader_image: AnyImage | None = None
        """Image tower of the second space; null: that of the first. Indexing an image runs both."""

        @model_validator(mode="after")
        def _is_frozen(self) -> Self:
            if self.finetune is not None:
                raise ValueError("the towers of two spaces stay frozen; set `finetune` to null")
            return self

    def __init__(self, config: Any = None, **resources: Any):
        super().__init__(config, **resources)
        options = self.config.model_dump(exclude={"reader", "reader_image"})
        self.compared = PairedEncoder(PairedEncoder.Config.model_validate(options), **resources)
        options["text"] = self.config.reader.model_dump()
        self.sees_twice = self.config.reader_image is not None
        if self.sees_twice:
            options["image"] = self.config.reader_image.model_dump()
        self.read = PairedEncoder(PairedEncoder.Config.model_validate(options), **resources)
        self.image = self.compared.image
        if not self.sees_twice:
            self.read.image = self.image
        self.num_views = self.compared.num_views

    # ------------------------------------------------------------------------------------------------ towers
    def tower_key(self, modality: Literal["image", "text"]) -> str:
        key = self.compared.tower_key(modality)
        return f"{key} {self.read.tower_key(modality)}" if modality == "text" or self.sees_twice else key

    def view_key(self, view: int) -> str:
        return self.compared.view_key(view)

    def image_features(self, images: Sequence[Image.Image], view: int = 0) -> Tensor:
        """(B, V), or (B, V + V′) the vectors of both image towers."""
        features = self.compared.image_features(images, view)
        return torch.cat([features, self.read.image_features(images, view)], dim=1) if self.sees_twice else features

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """(B, W + W′) the vectors of both text towers."""
        return torch.cat([self.compared.text_features(texts), self.read.text_features(texts)], dim=1)

    def query_features(self, texts: Sequence[str]) -> Tensor:
        """(B, W): the other tower has no part in what search compares."""
        return self.compared.text_features(texts)

    def reads(self, query: str) -> bool:
        return self.compared.reads(query)

    # ------------------------------------------------------------------------------------------------ heads
    def fit(self, train: Pairs, dev: Pairs, context: FitContext) -> None:
        words = self.compared.text_features(["a"]).shape[1]
        seen = self.compared.image_features([BLANK]).shape[1] if self.sees_twice else None
        first, first_dev = (_part(pairs, slice(seen), slice(words)) for pairs in (train, dev))
        self.compared.fit(first, first_dev, context)
        second, second_dev = (_part(pairs, slice(seen or 0, None), slice(None)) for pairs in (train, dev))
        self.read.fit(second, second_dev, context._replace(checkpoint_dir=context.checkpoint_dir / READER))

    def project_images(self, features: Tensor) -> Tensor:
        width = self._width("image")
        second = features[:, width:] if self.sees_twice else features
        return _side_by_side(self.compared.project_images(features[:, :width]), self.read.project_images(second))

    def project_texts(self, features: Tensor) -> Tensor:
        vectors = self.compared.project_texts(features[:, : self._width("text")])
        return torch.cat([vectors, torch.zeros_like(vectors)], dim=1)

    def project_captions(self, features: Tensor) -> Tensor:
        first = self.compared.project_texts(features[:, : self._width("text")])
        return _side_by_side(first, self.read.project_texts(features))

    def _width(self, modality: Literal["image", "text"]) -> int:
        """Width of the vectors that the compared space is made of."""
        heads = self.compared.heads
        if heads is None:
            return 0  # projecting says that there are none
        return len((heads.image if modality == "image" else heads.text).mean)

    # ------------------------------------------------------------------------------------------------ disk
    def save(self, folder: Path) -> None:
        self.compared.save(folder)
        self.read.save(folder / READER)

    def load(self, folder: Path) -> None:
        self.compared.load(folder)
        self.read.load(folder / READER)

    def to(self, device: torch.device) -> None:
        self.compared.to(device)
        self.read.to(device)


def _part(pairs: Pairs, images: slice, texts: slice) -> Pairs:
    """Some columns of the vectors."""
    return pairs._replace(images=pairs.images[..., images].contiguous(), texts=pairs.texts[:, texts].contiguous())


def _side_by_side(first: Tensor, second: Tensor) -> Tensor:
    """Two (B, D) of unit rows → (B, 2 D) unit rows"""
    return torch.cat([first, second], dim=1) * 0.5**0.5
