"""What every tower does. A tower is frozen: the same input gives the same vector until a model file changes.

Towers know nothing of caching, heads or training. Their libraries are imported when the first vector is asked for.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from genret.encoders.preprocess import Preprocess
from genret.interfaces import Config, Encoder
from genret.precision import autocast, native_bf16


class TowerConfig(Config):
    revision: str | None = None
    """Commit of a model of the hub, so that a recipe means the same weights tomorrow."""
    bf16: bool | Literal["auto"] = "auto"
    """Mixed precision; auto: where the processor multiplies bfloat16 natively."""


class ImageTowerConfig(TowerConfig):
    resize: Literal["crop", "squash", "pad"] | None = None
    """`crop`: shortest side, then the centre; `squash`: the whole picture made square; `pad`: the whole picture on a
    white square; null: as the model was trained."""


class Tower(ABC):
    """A model that is built when first needed, on the device it was moved to."""

    def __init__(self, config: Any, resolve_weights: Callable[[str], str] = str):
        self.config = config
        self.resolve_weights = resolve_weights
        self.device = torch.device("cpu")
        self._module: nn.Module | None = None

    @abstractmethod
    def build(self) -> nn.Module:
        """Loads the model; called once."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """JSON values that tell this tower's vectors from any other's."""

    @property
    def module(self) -> Any:
        if self._module is None:
            self._module = self.build().eval().requires_grad_(False).to(self.device)
        return self._module

    @property
    def precision(self) -> str:
        wanted = native_bf16(self.device) if self.config.bf16 == "auto" else self.config.bf16
        return "bf16" if wanted else "fp32"

    def key(self) -> str:
        return json.dumps(self.identity() | {"precision": self.precision}, sort_keys=True)

    def to(self, device: torch.device) -> None:
        self.device = device
        if self._module is not None:
            self._module.to(device)

    def mixed_precision(self) -> torch.autocast:
        return autocast(self.device, self.config.bf16)


class ImageTower(Tower):
    @property
    @abstractmethod
    def preprocess(self) -> Preprocess:
        """How a picture becomes the pixels that the tower was trained on."""

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """(B, 3, S, S) normalised pixels → (B, D)"""

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) in 0..1 → (B, D) float32 on the CPU."""
        with torch.inference_mode(), self.mixed_precision():
            inputs = self.preprocess.normalize(pixels.to(self.device))
            return self.forward(inputs.contiguous(memory_format=torch.channels_last)).float().cpu().clone()

    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB pictures → (B, D) float32 on the CPU."""
        return self.encode(self.preprocess.pixels(images))


class TextTower(Tower):
    @abstractmethod
    def forward(self, texts: Sequence[str]) -> Tensor:
        """B texts → (B, D)"""

    def features(self, texts: Sequence[str]) -> Tensor:
        """B texts → (B, D) float32 on the CPU."""
        with torch.inference_mode(), self.mixed_precision():
            return self.forward(list(texts)).float().cpu().clone()


class JointEncoder(Encoder):
    """Two towers that were trained into one space: nothing is left to fit, and pictures have no training views."""

    image: ImageTower
    text: TextTower

    def tower_key(self, modality: Literal["image", "text"]) -> str:
        return self.image.key() if modality == "image" else self.text.key()

    def image_features(self, images: Sequence[Image.Image], view: int = 0) -> Tensor:
        assert view == 0, "a pretrained joint space has no training views"
        return self.image.features(images)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        return self.text.features(texts)

    def to(self, device: torch.device) -> None:
        self.image.to(device)
        self.text.to(device)


SIZE = Field(None, ge=16, le=2048)
"""An image size, where a tower may be run at another than its own."""
