"""Any image tower and any text tower, mapped to one space by two heads that are trained on the captions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor

from genret.api import CaptionedImages, Config, FitContext, LoopOptions, Pairs
from genret.components.encoders.augment import Augment, ViewOptions
from genret.components.encoders.finetune import Finetune, sample_vectors
from genret.components.encoders.heads import (
    DEFAULT_TEMPERATURE,
    Heads,
    Space,
    caption_groups,
    info_nce,
    next_of_group,
    text_to_image_recall,
)
from genret.components.encoders.hf_clip import CLIPText, CLIPTextTower
from genret.components.encoders.hf_vision import HuggingFaceImage, HuggingFaceImageTower
from genret.components.encoders.joint import TwoTowerEncoder
from genret.components.encoders.open_clip import OpenCLIPImage, OpenCLIPImageTower, OpenCLIPText, OpenCLIPTextTower
from genret.components.encoders.recall.memory import Memory, MemoryOptions, caption_means
from genret.components.encoders.sentence import SentenceText, SentenceTextTower
from genret.components.encoders.timm_tower import TimmImage, TimmImageTower
from genret.components.encoders.towers import ImageTower, TextTower, Tower
from genret.errors import GenretError
from genret.kit.loop import run
from genret.toolbox import saving as stored

TOWERS: dict[type[Config], type[Tower]] = {
    TimmImage: TimmImageTower,
    HuggingFaceImage: HuggingFaceImageTower,
    OpenCLIPImage: OpenCLIPImageTower,
    SentenceText: SentenceTextTower,
    CLIPText: CLIPTextTower,
    OpenCLIPText: OpenCLIPTextTower,
}
STANDARDIZED_ROWS = 200_000
"""Maximum number of vectors for mean and standard deviation."""
MEMORY = "memory."
"""How the names of the memory's tensors begin, in the file of the heads."""
MEETING_DIM = 256
"""Width of the shared space during fine-tuning."""
MEETING_ROWS = 2048
"""Number of images and captions whose vectors standardize the inputs of that space."""


class HeadOptions(LoopOptions):
    """How the heads are trained."""

    epochs: int = Field(40, ge=0)
    """Epochs over the training captions; 0 leaves the heads as initialized."""
    batch_size: int = Field(512, ge=2)
    """Captions per step; the other captions' images are negatives."""
    weight_decay: float = Field(0.05, ge=0)
    """Decoupled weight decay of matrices; vectors and norms are exempt."""
    patience: int = Field(6, ge=0)
    """Stop after this many validations without improvement; 0: never. The best weights are kept in any case."""
    bf16: bool | Literal["auto"] = False
    """Mixed precision; no gain for such small heads."""
    alike: float = Field(0.0, ge=0, le=100)
    """Weight of a contrast of images with images, beside that with captions: images of the same caption, say by
    different designers, come to lie together."""


class PairedFinetune(Finetune):
    """How the towers are fine-tuned, before the heads are trained.

    This training uses temporary linear heads. The encoder's own heads are trained afterwards on the cached vectors of
    the finished towers, with much larger batches than pixels allow.
    """

    warm_up_epochs: int = Field(1, ge=0)
    """Epochs that train only the temporary heads, so that their first gradients do not distort the towers."""
    warm_up_lr: float = Field(1e-3, gt=0)
    """Peak learning rate of these epochs."""


class PairedEncoder(TwoTowerEncoder):
    """An image tower and a text tower with heads trained contrastively (InfoNCE)."""

    class Config(Config):
        image: Annotated[TimmImage | HuggingFaceImage | OpenCLIPImage, Field(discriminator="type")] = TimmImage()
        """The image tower; `type` is timm, huggingface or open-clip."""
        text: Annotated[SentenceText | CLIPText | OpenCLIPText, Field(discriminator="type")] = SentenceText()
        """The text tower; `type` is sentence, clip or open-clip."""
        dim: int = Field(256, ge=8, le=4096)
        """Width of the shared space."""
        hidden: int = Field(512, ge=0, le=8192)
        """Width of the heads' hidden layer, added to a linear map; 0: only the linear map."""
        dropout: float = Field(0.2, ge=0, lt=1)
        """Dropout rate of inputs and hidden units."""
        temperature: float = Field(DEFAULT_TEMPERATURE, gt=0, le=1)
        """Initial value of the learned temperature."""
        views: int = Field(1, ge=1, le=64)
        """Views per training image, the original included; each step samples one."""
        augment: ViewOptions = ViewOptions()
        train: HeadOptions = HeadOptions()
        """How the heads are trained."""
        captions: int | None = Field(None, ge=1)
        """Number of captions per training image that the heads are trained on, the first ones; null: all."""
        memory: MemoryOptions | None = None
        """How vectors are drawn towards the training images that they are like, for words that are in no caption and
        for other styles of drawing; null: not at all. Keeps the training images' vectors, and compares with all."""
        finetune: PairedFinetune | None = None
        """How the towers are fine-tuned before the heads; null: they are frozen."""

        @model_validator(mode="after")
        def _agrees(self) -> Self:
            if self.finetune is not None and getattr(self.image, "fold", False):
                raise ValueError("a tower with `image.fold` is not fine-tuned; set it to false, or `finetune` to null")
            return self

    def __init__(self, config: Any = None, **resources: Any):
        super().__init__(config, **resources)
        c = self.config
        image, text = (TOWERS[type(part)](part, self.resolve_weights) for part in (c.image, c.text))
        assert isinstance(image, ImageTower) and isinstance(text, TextTower)
        self.image, self.text = image, text
        self.num_views = c.views
        self.augment = Augment(c.augment.strength, c.augment.flip, c.augment.seed)
        self.heads: Heads | None = None
        self.memory: Memory | None = None
        self.device = torch.device("cpu")

    def view_key(self, view: int) -> str:
        if view == 0:
            return super().view_key(view)
        return json.dumps({"view": view, **self.config.augment.model_dump()}, sort_keys=True)

    def image_features(self, images: Sequence[Image.Image], view: int = 0) -> Tensor:
        if view == 0:
            return self.image.features(images)
        return self.image.encode(self.augment(images, view, self.image.preprocess))

    # ------------------------------------------------------------------------------------------------ towers
    def reads(self, query: str) -> bool:
        return self.text.reads(query)

    def space(self, train: CaptionedImages, context: FitContext) -> Space:
        images, texts = sample_vectors(self.image, self.text, train, context.seed, MEETING_ROWS)
        temperature = self.config.finetune.temperature or DEFAULT_TEMPERATURE
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            heads = Heads(images.shape[1], texts.shape[1], MEETING_DIM, hidden=0, dropout=0.0, temperature=temperature)
        heads.image.standardize(images)
        heads.text.standardize(texts)
        return heads.to(context.device)

    def warm_up(self) -> LoopOptions | None:
        c = self.config.finetune
        return c.model_copy(update={"epochs": c.warm_up_epochs, "lr": c.warm_up_lr})

    # ------------------------------------------------------------------------------------------------ heads
    def fit(self, train: Pairs, dev: Pairs, context: FitContext) -> None:
        if not len(train.texts):
            raise GenretError("the encoder's heads need captioned training images, and there are none")
        rows = _first_captions(train.owners, self.config.captions)
        images, texts, owners = train.images, train.texts[rows], train.owners[rows]
        heads = self._new_heads(images.shape[-1], texts.shape[-1], context.seed)
        heads.image.standardize(images.flatten(0, 1)[_sample(images.shape[0] * images.shape[1], context.seed)])
        heads.text.standardize(texts[_sample(len(texts), context.seed)])
        self.heads, self.memory = heads.to(context.device), None
        self.device = context.device
        groups = caption_groups(texts)
        other, alike = owners[next_of_group(groups)], self.config.train.alike

        def step(indices: Tensor, epoch: int, number: int) -> dict[str, Tensor]:
            owner, group = owners[indices], groups[indices]
            view = torch.randint(images.shape[1], (len(indices),))
            v = heads.image(images[owner, view].to(context.device))
            t = heads.text(texts[indices].to(context.device))
            same = (owner[:, None] == owner) | (group[:, None] == group)
            same = same.to(context.device)
            loss = info_nce(v, t, same, heads.scale)
            if alike:
                seen = torch.randint(images.shape[1], (len(indices),))
                again = heads.image(images[other[indices], seen].to(context.device))
                loss = loss + alike * info_nce(v, again, same, heads.scale)
            return {"loss": loss, "scale": heads.scale}

        def look() -> float:
            recalls = text_to_image_recall(
                self.project_images(dev.images[:, 0]), self.project_texts(dev.texts), dev.owners
            )
            return 100 * sum(recalls) / len(recalls)

        run(heads, step, len(texts), self.config.train, context, look if len(dev.texts) else None, name="heads")
        if self.config.memory is not None:
            self.memory = self._remembered(train, self.config.memory.words).to(self.device)

    def _remembered(self, train: Pairs, words: float) -> Memory:
        assert self.heads is not None
        images, head = train.images[:, 0], self.heads.image
        names = _first_captions(train.owners, 1)
        shown = torch.full((len(images),), -1)
        shown[train.owners[names]] = caption_groups(train.texts[names])
        captions = caption_means(
            train.texts, train.owners, len(images), _first_captions(train.owners, self.config.captions)
        )
        vectors, features = self.project_images(images), head.standardized(images.to(self.device)).to(images.device)
        return Memory.of(vectors, features, captions, shown, words)

    def project_images(self, features: Tensor) -> Tensor:
        return self._project("image", features)

    def project_texts(self, features: Tensor) -> Tensor:
        return self._project("text", features)

    def _project(self, modality: Literal["image", "text"], features: Tensor) -> Tensor:
        if self.heads is None:
            raise GenretError("the encoder's heads are not trained yet")
        head = self.heads.image if modality == "image" else self.heads.text
        was_training = self.heads.training
        self.heads.eval()
        parts = (part.to(self.device) for part in features.split(16384))
        with torch.no_grad():
            chunks = [self._recall(modality, head(part), part).to(features.device) for part in parts]
        self.heads.train(was_training)
        return torch.cat(chunks) if chunks else features.new_zeros(0, self.config.dim)

    def _recall(self, modality: Literal["image", "text"], vectors: Tensor, features: Tensor) -> Tensor:
        """(B, D) the heads' vectors of (B, W) features, drawn towards training images if there is a memory."""
        options, memory = self.config.memory, self.memory
        if options is None or memory is None or self.heads is None:
            return vectors
        if modality == "image":
            return memory.image(vectors, self.heads.image.standardized(features), options)
        return memory.text(vectors, F.normalize(features.float(), dim=-1), options)

    def _new_heads(self, image_width: int, text_width: int, seed: int) -> Heads:
        c = self.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Heads(image_width, text_width, c.dim, c.hidden, c.dropout, c.temperature)

    def save(self, folder: Path) -> None:
        assert self.heads is not None, "nothing is saved before fit"
        widths = {"image_width": len(self.heads.image.mean), "text_width": len(self.heads.text.mean)}
        tensors = self.heads.state_dict()
        if self.memory is not None:
            tensors |= {f"{MEMORY}{name}": part for name, part in self.memory._asdict().items()}
        stored.save(folder, "heads", tensors, widths)

    def load(self, folder: Path) -> None:
        with stored.reading(folder, "heads of the encoder"):
            weights, widths = stored.load(folder, "heads")
            heads = self._new_heads(int(widths["image_width"]), int(widths["text_width"]), seed=0)
            recalled = {name: weights.pop(MEMORY + name) for name in Memory._fields if MEMORY + name in weights}
            heads.load_state_dict(weights)
            memory = Memory(**recalled).to(self.device) if self.config.memory is not None else None
        self.heads, self.memory = heads.eval().to(self.device), memory

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.device = device
        if self.heads is not None:
            self.heads.to(device)
        if self.memory is not None:
            self.memory = self.memory.to(device)


def _sample(count: int, seed: int) -> Tensor:
    """Indices of at most `STANDARDIZED_ROWS` of `count` rows."""
    if count <= STANDARDIZED_ROWS:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:STANDARDIZED_ROWS]


def _first_captions(owners: Tensor, count: int | None) -> Tensor:
    """The rows of at most `count` captions of each image, the first ones, in their order; all for None."""
    if count is None:
        return torch.arange(len(owners))
    order = torch.argsort(owners, stable=True)
    _, index, counts = torch.unique_consecutive(owners[order], return_inverse=True, return_counts=True)
    place = torch.arange(len(owners)) - (counts.cumsum(0) - counts)[index]
    return order[place < count].sort().values
