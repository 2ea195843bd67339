"""Fine-tuning of towers: CLIP's contrastive loss over images and captions, with gradients through the towers.

One caption per image is sampled each epoch, so an image is never its own negative; images whose sampled captions are
the same text are positives of each other. Batch normalization keeps its pretrained statistics: those of a small data
set would be worse. An interrupted training continues exactly (genret/kit/loop.py): captions and views are functions of
(seed, epoch, image).

B images in a batch   N captioned training images   T captions
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
from pydantic import Field, field_validator
from torch import Tensor, nn

from genret.api import CaptionedImages, FitContext, LoopOptions
from genret.components.encoders.augment import Augment, ViewOptions
from genret.components.encoders.batches import Batches, reading_ahead
from genret.components.encoders.blocks import last_parameters
from genret.components.encoders.heads import Space, info_nce, text_to_image_recall
from genret.components.encoders.towers import ImageTower, TextTower
from genret.errors import GenretError
from genret.kit.device import autocast
from genret.kit.encode import ImageItem, decoded
from genret.kit.loop import epoch_order, run

Modality = Literal["image", "text"]
TEXTS_AT_ONCE = 256


class Finetune(LoopOptions):
    """How the towers are fine-tuned."""

    towers: list[Modality] = ["image", "text"]
    """Which towers are trained: [image, text], image or text."""
    last_layers: int | None = Field(None, ge=0)
    """Number of a tower's last blocks to train, with the modules after them; null: the whole tower."""
    temperature: float | None = Field(None, gt=0, le=1)
    """Initial value of the learned temperature; null: the pretrained model's, or 0.07."""
    augment: ViewOptions = ViewOptions(strength=0.5)
    """Each epoch uses another view of each image; strength 0: the original."""
    epochs: int = Field(5, ge=0)
    """Epochs over the training images; 0 leaves the towers unchanged."""
    batch_size: int = Field(64, ge=2)
    """Images per step; the other images' captions are negatives."""
    lr: float = Field(1e-5, gt=0)
    """Peak learning rate (AdamW)."""
    weight_decay: float = Field(0.05, ge=0)
    """Decoupled weight decay of matrices; vectors and norms are exempt."""
    patience: int = Field(2, ge=0)
    """Stop after this many validations without improvement; 0: never. The best weights are kept in any case."""

    @field_validator("towers", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("towers")
    @classmethod
    def _each_once(cls, value: list[Modality]) -> list[Modality]:
        if not value or len(set(value)) < len(value):
            raise ValueError("should name image, text or both; null instead of finetune keeps both frozen")
        return value


class Captioned(NamedTuple):
    """The images that have captions."""

    read: list[Callable[[], Image.Image]]
    captions: list[list[str]]

    @classmethod
    def of(cls, pictures: CaptionedImages) -> Captioned:
        captions: dict[int, list[str]] = {}
        for caption, owner in zip(pictures.captions, pictures.owners, strict=True):
            captions.setdefault(int(owner), []).append(caption)
        return cls([pictures.read[row] for row in sorted(captions)], [captions[row] for row in sorted(captions)])

    def draw(self, seed: int, epoch: int) -> list[str]:
        """Samples one caption of each image."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch + 1)
        draws = torch.rand(len(self.captions), generator=generator, dtype=torch.float64).tolist()
        return [own[int(draw * len(own))] for own, draw in zip(self.captions, draws, strict=True)]


class _Trained(nn.Module):
    """The module of the training loop: the trained parameters, and the towers to switch to training mode.

    Only trained parameters are registered, so checkpoints and best weights do not hold whole towers.
    """

    def __init__(self, space: Space, parameters: dict[str, nn.Parameter], towers: Sequence[nn.Module]):
        super().__init__()
        self.space = space
        for name, parameter in parameters.items():
            parameter.requires_grad_(True)
            self.register_parameter(name.replace(".", "/"), parameter)
        self._towers = tuple(towers)  # a tuple, so that torch does not register them

    def train(self, mode: bool = True) -> _Trained:
        super().train(mode)
        for tower in self._towers:
            _set_mode(tower, mode)
        return self


def _set_mode(module: nn.Module, training: bool) -> None:
    """Training mode for modules that are trained; frozen parts and batch statistics do not change."""
    parameters = list(module.parameters())
    frozen = bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
    if not training or frozen or isinstance(module, nn.modules.batchnorm._BatchNorm):
        module.train(False)
        return
    module.training = True
    for child in module.children():
        _set_mode(child, training)


def fine_tune(
    image: ImageTower,
    text: TextTower,
    space: Space,
    options: Finetune,
    train: CaptionedImages,
    dev: CaptionedImages,
    context: FitContext,
    warm_up: LoopOptions | None = None,
) -> dict[Modality, dict[str, nn.Parameter]]:
    """Trains the towers in place and returns each one's trained parameters, by name; then all are frozen again.

    `space` is the shared space, on the context's device. `warm_up`: first trains the space alone, for randomly
    initialized spaces, whose gradients would distort the pretrained features (arXiv 2202.10054).
    """
    pictures, held_out = Captioned.of(train), Captioned.of(dev)
    wordings: dict[str, int] = {}
    for caption in (caption for own in pictures.captions for caption in own):
        wordings.setdefault(caption, len(wordings))
    augment = Augment(options.augment.strength, options.augment.flip, options.augment.seed)

    def pixels(images: Sequence[Image.Image], epoch: int) -> Tensor:
        if options.augment.strength == 0 and options.augment.flip == 0:
            return image.preprocess.pixels(images)
        return augment(images, epoch + 1, image.preprocess)  # view 0 is the original

    def look() -> float:
        with autocast(context.device, options.bf16):
            return _recall(image, text, space, held_out, options.batch_size)

    def stage(module: nn.Module, loop: LoopOptions, evaluate: Callable[[], float] | None, name: str) -> None:
        def examples(number: int) -> tuple[Tensor, int] | None:
            return _examples(len(pictures.read), context.seed, loop, number)

        with image.layout_for_training(), reading_ahead() as pools:
            batches = Batches(pictures.read, pixels, examples, pools)

            def step(indices: Tensor, epoch: int, number: int) -> dict[str, Tensor]:
                batch = batches.batch(number)
                if not len(batch.indices):  # none of its images could be read
                    return {"loss": space.scale * 0.0, "scale": space.scale}
                captions = pictures.draw(context.seed, epoch)
                words = [captions[index] for index in batch.indices.tolist()]
                v = space.image(image.forward(image.inputs(batch.pixels)))
                t = space.text(text.forward(words))
                wording = torch.tensor([wordings[caption] for caption in words])
                same = (wording[:, None] == wording).to(v.device)
                return {"loss": info_nce(v, t, same, space.scale), "scale": space.scale}

            run(module, step, len(pictures.read), loop, context, evaluate, name=name)

    sides: dict[Modality, ImageTower | TextTower] = {"image": image, "text": text}
    trained = {side: last_parameters(sides[side], options.last_layers) for side in options.towers}
    if warm_up is not None and warm_up.epochs:
        stage(_Trained(space, {}, ()), warm_up, None, "towers-space")
    parameters = {f"{side}.{name}": value for side, named in trained.items() for name, value in named.items()}
    try:
        modules = [sides[side].module for side in options.towers]
        stage(_Trained(space, parameters, modules), options, look if held_out.read else None, "towers")
    finally:
        for parameter in parameters.values():
            parameter.requires_grad_(False)
    return trained


def sample_vectors(
    image: ImageTower, text: TextTower, train: CaptionedImages, seed: int, most: int
) -> tuple[Tensor, Tensor]:
    """The frozen vectors of at most `most` images and captions, (n, D_image) and (n, D_text)."""
    generator = torch.Generator().manual_seed(seed)
    captions = torch.randperm(len(train.captions), generator=generator)[:most].tolist()
    owners = sorted({int(train.owners[caption]) for caption in captions})
    images = [vectors for _, vectors in _encoded(image, [train.read[row] for row in owners], 64)]
    if not images:
        raise GenretError("fine-tuning needs pictures that can be read, and of those that were tried there is none")
    with torch.no_grad():
        return torch.cat(images).cpu(), _texts(text, [train.captions[caption] for caption in captions]).cpu()


def _examples(count: int, seed: int, loop: LoopOptions, number: int) -> tuple[Tensor, int] | None:
    """The examples and the epoch of a step; None after the last step."""
    epoch, place = divmod(number, math.ceil(count / loop.batch_size))
    return (epoch_order(count, seed, epoch).split(loop.batch_size)[place], epoch) if epoch < loop.epochs else None


def _recall(image: ImageTower, text: TextTower, space: Space, held_out: Captioned, batch_size: int) -> float:
    """Mean of text-to-image R@1, 5 and 10 over the readable images, in percent."""
    rows, parts = list[int](), list[Tensor]()
    for place, vectors in _encoded(image, held_out.read, batch_size):
        rows += place
        parts.append(space.image(vectors))
    if not rows:
        return 0.0
    texts = [caption for row in rows for caption in held_out.captions[row]]
    counts = torch.tensor([len(held_out.captions[row]) for row in rows])
    owners = torch.repeat_interleave(torch.arange(len(rows)), counts)
    recalls = text_to_image_recall(torch.cat(parts), space.text(_texts(text, texts)), owners)
    return 100 * sum(recalls) / len(recalls)


@torch.no_grad()
def _encoded(
    image: ImageTower, read: Sequence[Callable[[], Image.Image]], batch_size: int
) -> list[tuple[list[int], Tensor]]:
    """Batches of vectors of unaugmented images, with the images' indices."""
    items = [ImageItem(str(row), load) for row, load in enumerate(read)]
    found = []
    for batch in decoded(items, range(len(items)), batch_size, bad={}):
        vectors = image.forward(image.inputs(image.preprocess.pixels([picture for _, picture in batch])))
        found.append(([row for row, _ in batch], vectors.float()))
    return found


def _texts(text: TextTower, texts: Sequence[str]) -> Tensor:
    parts = [text.forward(texts[at : at + TEXTS_AT_ONCE]).float() for at in range(0, len(texts), TEXTS_AT_ONCE)]
    return torch.cat(parts)
