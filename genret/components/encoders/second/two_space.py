"""One image tower, two text towers, two pairs of heads: a space that search compares in, and one to be written.

What a language model learns of the space that its query is compared in anyway, the comparison says better. So its codes
come from a second space (`identifier: {type: two-space}`), whose captions are read by a further text tower beside the
first: it errs in other places, and adds what it knows. Not in the paper; figures: docs/results.md.

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

READER = "read"
"""Folder of the second space's heads, in that of the first one's."""


class TwoSpaceEncoder(Encoder):
    """Two `paired` encoders over the same images. Vectors are twice as wide as `dim`."""

    num_spaces = 2

    class Config(PairedEncoder.Config):
        reader: Annotated[SentenceText | CLIPText | OpenCLIPText, Field(discriminator="type")] = SentenceText()
        """A further text tower for the second space, in which no query is compared; `backbone.encoder` names both."""

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

    def query_features(self, texts: Sequence[str]) -> Tensor:
        """(B, W): the other tower has no part in what search compares."""
        return self.compared.text_features(texts)

    def reads(self, query: str) -> bool:
        return self.compared.reads(query)

    # ------------------------------------------------------------------------------------------------ heads
    def fit(self, train: Pairs, dev: Pairs, context: FitContext) -> None:
        width = self.compared.text_features(["a"]).shape[1]
        first, first_dev = (pairs._replace(texts=pairs.texts[:, :width].contiguous()) for pairs in (train, dev))
        self.compared.fit(first, first_dev, context)
        self.read.fit(train, dev, context._replace(checkpoint_dir=context.checkpoint_dir / READER))

    def project_images(self, features: Tensor) -> Tensor:
        return _side_by_side(self.compared.project_images(features), self.read.project_images(features))

    def project_texts(self, features: Tensor) -> Tensor:
        vectors = self.compared.project_texts(features[:, : self._width])
        return torch.cat([vectors, torch.zeros_like(vectors)], dim=1)

    def project_captions(self, features: Tensor) -> Tensor:
        first = self.compared.project_texts(features[:, : self._width])
        return _side_by_side(first, self.read.project_texts(features))

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
