"""One image tower, two text towers, two pairs of heads: a space that search compares in, and one to be written.

What a language model learns of the space that its query is compared in anyway, the comparison says better. So its codes
come from a second space, that of the text tower which reads for it (`identifier: {type: two-space}`): it errs in other
places, and adds what it knows. Not in the paper; figures: docs/results.md.

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
from genret.components.encoders.open_clip import OpenCLIPText
from genret.components.encoders.paired import PairedEncoder
from genret.components.encoders.sentence import SentenceText

READER = "reader"
"""Folder of the second space's heads, in that of the first one's."""


class TwoSpaceEncoder(Encoder):
    """Two `paired` encoders over the same images. Vectors are twice as wide as `dim`."""

    num_spaces = 2

    class Config(PairedEncoder.Config):
        reader: Annotated[SentenceText | CLIPText | OpenCLIPText, Field(discriminator="type")] = SentenceText()
        """The text tower of the second space, which no query is compared in: that of `backbone.encoder`."""

        @model_validator(mode="after")
        def _is_frozen(self) -> Self:
            if self.finetune is not None:
                raise ValueError("two spaces share one frozen image tower; set `finetune` to null")
            return self

    def __init__(self, config: Any = None, **resources: Any):
        super().__init__(config, **resources)
        options = self.config.model_dump(exclude={"reader"})
        self.compared = PairedEncoder(PairedEncoder.Config.model_validate(options), **resources)
        options["text"] = self.config.reader.model_dump()
        self.read = PairedEncoder(PairedEncoder.Config.model_validate(options), **resources)
        self.image = self.read.image = self.compared.image
        self.num_views = self.compared.num_views

    # ------------------------------------------------------------------------------------------------ towers
    def tower_key(self, modality: Literal["image", "text"]) -> str:
        key = self.compared.tower_key(modality)
        return key if modality == "image" else f"{key} {self.read.tower_key(modality)}"

    def view_key(self, view: int) -> str:
        return self.compared.view_key(view)

    def image_features(self, images: Sequence[Image.Image], view: int = 0) -> Tensor:
        return self.compared.image_features(images, view)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """(B, W + W′) the vectors of both text towers."""
        return torch.cat([self.compared.text_features(texts), self.read.text_features(texts)], dim=1)

    def reads(self, query: str) -> bool:
        return self.compared.reads(query)

    # ------------------------------------------------------------------------------------------------ heads
    def fit(self, train: Pairs, dev: Pairs, context: FitContext) -> None:
        width = self.compared.text_features(["a"]).shape[1]
        apart = context._replace(checkpoint_dir=context.checkpoint_dir / READER)
        for encoder, columns, own in ((self.compared, slice(width), context), (self.read, slice(width, None), apart)):
            texts, dev_texts = (pairs.texts[:, columns].contiguous() for pairs in (train, dev))
            encoder.fit(train._replace(texts=texts), dev._replace(texts=dev_texts), own)

    def project_images(self, features: Tensor) -> Tensor:
        return _side_by_side(self.compared.project_images(features), self.read.project_images(features))

    def project_texts(self, features: Tensor) -> Tensor:
        vectors = self.compared.project_texts(features[:, : self._width])
        return torch.cat([vectors, torch.zeros_like(vectors)], dim=1)

    def project_captions(self, features: Tensor) -> Tensor:
        first, second = features.tensor_split([self._width], dim=1)
        return _side_by_side(self.compared.project_texts(first), self.read.project_texts(second))

    @property
    def _width(self) -> int:
        """W of the vectors that queries are compared by."""
        heads = self.compared.heads
        return 0 if heads is None else len(heads.text.mean)  # without heads, projecting says so

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


def _side_by_side(first: Tensor, second: Tensor) -> Tensor:
    """Two (B, D) of unit rows → (B, 2 D) unit rows"""
    return torch.cat([first, second], dim=1) * 0.5**0.5
