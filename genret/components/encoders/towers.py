"""Base classes of towers. The same input gives the same vector until a model file changes or the tower is tuned.

Caching, heads and training are elsewhere. A tower's library is imported when the first vector is computed.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from genret.api import Config
from genret.components.encoders.preprocess import Preprocess
from genret.errors import GenretError
from genret.kit.device import autocast, native_bf16
from genret.toolbox.cores import num_parts, side_by_side

MOST_TOKENS = 8192
MOST_IMAGES = 4096
COUNT_FROM_PADDING = frozenset(
    ("roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "camembert", "mpnet", "data2vec-text", "ibert",
     "longformer", "luke", "xmod", "altclip_text_model")
)  # fmt: skip
"""Models whose positions start after the padding index, so that the table's first rows are unused."""


class TowerConfig(Config):
    revision: str | None = None
    """Commit of a hub model, so that a recipe always loads the same weights."""
    bf16: bool | Literal["auto"] = "auto"
    """Mixed precision; auto: if the processor supports bfloat16 natively."""


class ImageTowerConfig(TowerConfig):
    resize: Literal["crop", "squash", "pad"] | None = None
    """`crop`: resize the shortest side, then centre crop; `squash`: resize to a square; `pad`: the whole image on a
    white square; null: as in the model's training."""


class Tower(ABC):
    """A model that is loaded when first needed, on the device it was moved to."""

    def __init__(self, config: Any, resolve_weights: Callable[[str], str] = str):
        self.config = config
        self.resolve_weights = resolve_weights
        self.device = torch.device("cpu")
        self._module: nn.Module | None = None
        self._tuned: tuple[str, Mapping[str, Tensor]] | None = None

    @abstractmethod
    def build(self) -> nn.Module:
        """Loads the model; called once."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """JSON values that identify this tower's vectors in the cache."""

    @property
    def module(self) -> Any:
        """The model, frozen and in evaluation mode."""
        if self._module is None:
            with torch.inference_mode(False):  # parameters made in inference mode cannot be trained
                self._module = self.build().eval().requires_grad_(False).to(self.device)
                self._apply_lent()
        return self._module

    def set_weights(self, weights: Mapping[str, Tensor], key: str) -> None:
        """Replaces some of the model's parameters, by name; `key` names these weights in `Tower.key`."""
        self._tuned = (key, weights)
        if self._module is not None:
            self._apply_lent()

    def _apply_lent(self) -> None:
        if self._tuned is None or self._module is None:
            return
        parameters = dict(self._module.named_parameters())
        for name, weights in self._tuned[1].items():
            if name not in parameters or parameters[name].shape != weights.shape:
                raise GenretError(f"the fine-tuned weights '{name}' do not fit {self.config.model}: another model's?")
        with torch.no_grad():
            for name, weights in self._tuned[1].items():
                parameters[name].copy_(weights)
        self._tuned = (self._tuned[0], {})  # the model holds them from now on

    @property
    def precision(self) -> str:
        wanted = native_bf16(self.device) if self.config.bf16 == "auto" else self.config.bf16
        return "bf16" if wanted else "fp32"

    def key(self) -> str:
        tuned = {} if self._tuned is None else {"tuned": self._tuned[0]}
        return json.dumps(self.identity() | {"precision": self.precision} | tuned, sort_keys=True)

    def to(self, device: torch.device) -> None:
        self.device = device
        if self._module is not None:
            self._module.to(device)

    def mixed_precision(self) -> torch.autocast:
        return autocast(self.device, self.config.bf16)


class ImageTower(Tower):
    _layout = torch.channels_last

    @property
    def at_a_time(self) -> int:
        """Maximum number of images that go through the model together; a tower may have reasons for few."""
        return MOST_IMAGES

    @property
    @abstractmethod
    def preprocess(self) -> Preprocess:
        """The preprocessing that the tower was trained with."""

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """(B, 3, S, S) normalized pixels → (B, D)"""

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) in 0..1 → (B, D) float32 on the CPU."""
        return self._encoded(pixels, lambda part: part)

    def _encoded(self, items: Any, pixels: Callable[[Any], Tensor]) -> Tensor:
        """B items → (B, D). On a CPU each core prepares and encodes some of them."""
        _ = self.module  # loaded once
        share = -(-len(items) // num_parts(len(items), self.device))

        def some(own: Any) -> Tensor:
            with torch.inference_mode(), self.mixed_precision():
                parts = (self.inputs(pixels(part)) for part in _pieces(own, self.at_a_time))
                return torch.cat([self.forward(part).float() for part in parts]).cpu()

        return torch.cat(side_by_side(some, _pieces(items, share))).clone()

    def inputs(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) in 0..1 → normalized pixels, on the tower's device."""
        normalized = self.preprocess.normalize(pixels.to(self.device))
        return normalized.contiguous(memory_format=self._layout)

    @contextmanager
    def layout_for_training(self) -> Iterator[None]:
        """On CPUs, contiguous pixels and filters: torch 2.15 crashes on some gradients in channels-last layout."""
        if self.device.type != "cpu":
            yield
            return
        before, self._layout = self._layout, torch.contiguous_format
        filters = [(parameter, parameter.stride()) for parameter in self.module.parameters() if parameter.ndim == 4]
        for parameter, _ in filters:  # clones: 1 × 1 filters count as contiguous in either layout
            parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
        try:
            yield
        finally:
            self._layout = before
            for parameter, strides in filters:
                parameter.data = torch.empty_strided(parameter.shape, strides).copy_(parameter.data)

    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB images → (B, D) float32 on the CPU."""
        return self._encoded(images, self.preprocess.pixels)


class TextTower(Tower):
    @abstractmethod
    def forward(self, texts: Sequence[str]) -> Tensor:
        """B texts → (B, D)"""

    def reads(self, text: str) -> bool:
        """Whether it knows any part of the text."""
        return True

    def features(self, texts: Sequence[str]) -> Tensor:
        """B texts → (B, D) float32 on the CPU."""
        with torch.inference_mode(), self.mixed_precision():
            return self.forward(list(texts)).float().cpu().clone()


SIZE = Field(None, ge=16, le=2048)
"""The image size, for towers that accept other sizes than their default."""


def most_tokens(settings: Any, tokenizer: Any, said: int | None = None) -> int:
    """The maximum number of tokens: the least of the model's positions, its tokenizer's limit and `said`."""
    positions = getattr(settings, "max_position_embeddings", None)
    if isinstance(positions, int) and settings.model_type in COUNT_FROM_PADDING:
        positions -= settings.pad_token_id + 1
    limits = [said, tokenizer.model_max_length, positions, MOST_TOKENS]
    return min(limit for limit in limits if isinstance(limit, int) and limit > 0)


def _pieces(items: Any, size: int) -> list[Any]:
    """At most `size` of them each, in order; of none, one without any."""
    return [items[start : start + size] for start in range(0, max(1, len(items)), max(1, size))]
