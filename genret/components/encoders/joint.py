"""Base of all two-tower encoders: vectors, cache keys and fine-tuning.

`JointEncoder` is for towers that were trained into one space and needs no fit; others add heads (paired.py).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from genret.api import CaptionedImages, Encoder, FitContext, LoopOptions
from genret.components.encoders.finetune import Finetune, fine_tune
from genret.components.encoders.heads import DEFAULT_TEMPERATURE, JointSpace, Space
from genret.components.encoders.towers import ImageTower, TextTower
from genret.errors import GenretError
from genret.toolbox import saving as stored


class TwoTowerEncoder(Encoder):
    """An image tower and a text tower, frozen unless the option `finetune` says otherwise."""

    image: ImageTower
    text: TextTower

    def tower_key(self, modality: Literal["image", "text"]) -> str:
        return self.image.key() if modality == "image" else self.text.key()

    def text_features(self, texts: Sequence[str]) -> Tensor:
        return self.text.features(texts)

    def to(self, device: torch.device) -> None:
        self.image.to(device)
        self.text.to(device)

    # ------------------------------------------------------------------------------------------------ fine-tuning
    @abstractmethod
    def space(self, train: CaptionedImages, context: FitContext) -> Space:
        """The shared space while the towers are trained."""

    def warm_up(self) -> LoopOptions | None:
        """The warm-up of that space, if it is randomly initialized."""
        return None

    @property
    def finetunes(self) -> bool:
        return self.config.finetune is not None

    def fit_towers(self, train: CaptionedImages, dev: CaptionedImages, context: FitContext) -> None:
        options = self.config.finetune
        assert isinstance(options, Finetune), "fit_towers is asked for only where `finetunes` is true"
        self.to(context.device)
        if not train.captions:
            raise GenretError("fine-tuning needs captioned training images, and there are none")
        space = self.space(train, context)
        trained = fine_tune(self.image, self.text, space, options, train, dev, context, self.warm_up())
        self._tuned: dict[str, Tensor] = {
            f"{side}.{name}": parameter
            for side, parameters in trained.items()
            for name, parameter in parameters.items()
        }

    def save_towers(self, folder: Path) -> None:
        stored.save(folder, "towers", self._tuned, {"parameters": list(self._tuned)})

    def load_towers(self, folder: Path, key: str) -> None:
        with stored.reading(folder, "weights of fine-tuned towers"):
            tensors, facts = stored.load(folder, "towers")
            if tensors.keys() != set(facts["parameters"]):
                raise ValueError("some of its parameters are missing")
        for side, tower in (("image.", self.image), ("text.", self.text)):
            weights = {name.removeprefix(side): value for name, value in tensors.items() if name.startswith(side)}
            if weights:  # an unchanged tower keeps its key and thus its cached vectors
                tower.set_weights(weights, key)


class JointEncoder(TwoTowerEncoder):
    """Two towers that were trained into one space: no heads and no augmented views."""

    def image_features(self, images: Sequence[Image.Image], view: int = 0) -> Tensor:
        assert view == 0, "a pretrained joint space has no training views"
        return self.image.features(images)

    def space(self, train: CaptionedImages, context: FitContext) -> Space:
        temperature = self.config.finetune.temperature
        if temperature is None:  # the temperature of the pretrained towers
            log_scale = getattr(self.image.module, "logit_scale", None)
            temperature = DEFAULT_TEMPERATURE if log_scale is None else math.exp(-log_scale.item())
        return JointSpace(temperature).to(context.device)
