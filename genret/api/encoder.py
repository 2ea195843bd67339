"""Two towers that share a feature space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from genret.api.component import Component
from genret.api.context import FitContext
from genret.api.described import described

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor


class Encoder(Component, ABC):
    """Two towers, frozen unless fine-tuned, and, if trainable, two heads that project their vectors into one space.

    The towers' vectors are cached on disk by image and by `tower_key`. The heads run on cached vectors.
    """

    kind = "encoder"

    num_spaces: ClassVar[int] = 1
    """Of how many spaces vectors have a part, side by side; queries are compared in the first."""
    num_views: int = 1
    """Augmented views taken of each *training* image; view 0 is the original image."""

    @abstractmethod
    def tower_key(self, modality: Literal["image", "text"]) -> str:
        """A key of everything that the tower's vectors depend on: architecture, weights, resolution, pooling."""

    def view_key(self, view: int) -> str:
        """A key of a view and the options that it depends on; the cache tells the views of an image apart by it."""
        return str(view)

    @abstractmethod
    def image_features(self, images: Sequence[Image.Image], view: int = 0) -> Tensor:
        """RGB images → (B, D_image) float32 on the CPU."""

    @abstractmethod
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Texts → (B, D_text) float32 on the CPU."""

    def reads(self, query: str) -> bool:
        """Whether the text tower knows any word or part of the query."""
        return True

    @property
    def finetunes(self) -> bool:
        """Whether `fit_towers` runs before any vector is computed: an option of encoders that support it."""
        return False

    def fit_towers(self, train: CaptionedImages, dev: CaptionedImages, context: FitContext) -> None:
        """Trains the towers themselves on pixels and captions.

        The result must be determined by the option `finetune` (an encoder without one: by all its options), the
        pretrained towers' keys, the data, the seed and the kind of device, because the stage is reused by these.
        """
        raise NotImplementedError("an encoder with finetune must implement this")

    def save_towers(self, folder: Path) -> None:
        """Writes what `fit_towers` changed (safetensors, JSON)."""

    def load_towers(self, folder: Path, key: str) -> None:
        """Reads what `save_towers` wrote. From then on `tower_key` includes `key`, which names these weights."""

    def fit(self, train: Pairs, dev: Pairs, context: FitContext) -> None:
        """Trains the heads. Pretrained joint spaces (CLIP) have none: the default does nothing."""

    def project_images(self, features: Tensor) -> Tensor:
        """(B, D_image) → (B, D), unit rows."""
        return _unit(features)

    def project_texts(self, features: Tensor) -> Tensor:
        """(B, D_text), or (B, D_query) of `query_features` → (B, D), unit rows."""
        return _unit(features)

    def query_features(self, texts: Sequence[str]) -> Tensor:
        """(B, D_query) what `project_texts` needs of a query. An encoder may know more of captions than is compared."""
        return self.text_features(texts)

    def project_captions(self, features: Tensor) -> Tensor:
        """(B, D_text) → (B, D), unit rows, of training captions: what identifier and teacher learn from."""
        return self.project_texts(features)

    def save(self, folder: Path) -> None:
        """Writes what `fit` learned (safetensors, JSON)."""

    def load(self, folder: Path) -> None:
        """Reads what `save` wrote."""

    def to(self, device: torch.device) -> None:
        """Moves towers and heads to `device`."""


def _unit(rows: Tensor) -> Tensor:
    scaled: Tensor = rows / rows.norm(dim=-1, keepdim=True).clamp_min(1e-8)
    return scaled


@described
class CaptionedImages(NamedTuple):
    """Captioned images as pixels. Caption t describes image `owners[t]`."""

    read: Sequence[Callable[[], Image.Image]]
    """Opens each image (RGB) on demand; `BadImage` if it cannot be read."""
    captions: Sequence[str]
    """T texts"""
    owners: Sequence[int]
    """(T,) the image that each caption describes"""


@described
class Pairs(NamedTuple):
    """Captioned images as vectors. Caption t describes image `owners[t]`."""

    images: Tensor
    """(N, W, D_image): W views of each image; view 0 is the original image."""
    texts: Tensor
    """(T, D_text)"""
    owners: Tensor
    """(T,) rows of `images`"""
