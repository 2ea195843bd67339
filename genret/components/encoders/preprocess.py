"""Images → pixels, by a model's preprocessing settings; the same code for all libraries.

Only the middle of a very long image is resized, so that 10 × 100,000 pixels cost no more than a few squares.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genret.errors import GenretError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
MOST_OBLONG = 8
ODD = ("do_flip_channel_order", "rescale_offset")
"""Unsupported steps of transformers' image processors that would change the pixels."""
WHOLE_FROM = 384
"""From this size on, models with a `crop_pct` and no `crop_size` squash the whole image to a square (ConvNeXt)."""
Resize = Literal["crop", "squash", "pad"]


class Preprocess(NamedTuple):
    size: int
    """S, the side of the tower's square input"""
    resize: Resize
    resize_to: int
    """The side that the image is resized to before the central S × S crop; S or more"""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    fill: int = 255
    """Grey level around padded images"""
    rounds: bool = True
    """Whether the crop's offset is rounded (torchvision) or floored (transformers)"""

    def with_resize(self, resize: Resize | None) -> Preprocess:
        """Another method than the model's to make images square; `squash` and `pad` use the whole image."""
        if resize is None or resize == self.resize:
            return self
        return self._replace(resize=resize, resize_to=self.size, fill=255)

    def pixels(self, images: Sequence[Image.Image], scale: float = 1.0) -> Tensor:
        """B images → (B, 3, S', S') in 0..1, S' = scale · S."""
        stacked = np.stack([np.asarray(self.frame(image, scale)) for image in images])  # (B, S', S', 3)
        return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 255.0

    def normalize(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) in 0..1 → normalized pixels."""
        mean, std = (torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std

    def frame(self, image: Image.Image, scale: float = 1.0) -> Image.Image:
        """The square of S' × S' pixels, before normalization."""
        side = round(self.size * scale)
        image = image if image.mode == "RGB" else image.convert("RGB")
        width, height = image.size
        resample = FILTERS[self.interpolation]
        if self.resize == "pad":
            ratio = side / max(width, height)
            inner = image.resize((max(1, round(width * ratio)), max(1, round(height * ratio))), resample)
            canvas = Image.new("RGB", (side, side), (self.fill,) * 3)
            canvas.paste(inner, ((side - inner.width) // 2, (side - inner.height) // 2))
            return canvas
        to = max(round(self.resize_to * scale), side)
        if self.resize == "squash":
            return _centre(image.resize((to, to), resample), side, self.rounds)
        image = _at_most(image, MOST_OBLONG)
        width, height = image.size
        short = min(width, height)
        return _centre(image.resize((int(to * width / short), int(to * height / short)), resample), side, self.rounds)


def _centre(image: Image.Image, side: int, rounds: bool) -> Image.Image:
    """The central square."""
    left, top = (image.width - side) / 2, (image.height - side) / 2
    left, top = (round(left), round(top)) if rounds else (int(left), int(top))
    return image.crop((left, top, left + side, top + side))


def _at_most(image: Image.Image, ratio: int) -> Image.Image:
    """The central part of an image that is longer than `ratio` times its width; the crop would drop the ends anyway."""
    width, height = image.size
    if max(width, height) <= ratio * min(width, height):
        return image
    new_width, new_height = min(width, ratio * height), min(height, ratio * width)
    left, top = (width - new_width) // 2, (height - new_height) // 2
    return image.crop((left, top, left + new_width, top + new_height))


def from_transformers(settings: Mapping[str, Any], where: str) -> Preprocess:
    """Reads `preprocessor_config.json` (or the image part of `processor_config.json`)."""
    settings = settings.get("image_processor", settings)
    if odd := [key for key in ODD if settings.get(key)]:
        raise GenretError(f"{where}: genret does not prepare pictures with {odd[0]}, as this model wants them")
    size, crop = settings.get("size"), settings.get("crop_size")
    if settings.get("max_num_patches") and size is None:
        raise GenretError(
            f"{where} takes pictures of any shape as patches (NaFlex), and genret only square ones; take a model of "
            "fixed size, such as google/siglip2-base-patch16-224"
        )
    cuts = bool(settings.get("do_center_crop", crop is not None)) and crop is not None
    side = _side(crop if cuts else size)
    to, squash = _edge(size)
    if side is None or to is None:
        raise GenretError(f"{where}: genret knows no pictures of size {size}, crop {crop}; it needs square ones")
    if (share := settings.get("crop_pct")) and not (cuts and squash):  # as ConvNeXt and PoolFormer write it
        squash = crop is None and to >= WHOLE_FROM
        to = to if squash else int(to / share)
    filters = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
    normalize = settings.get("do_normalize", True)
    return Preprocess(
        size=side,
        resize="squash" if squash else "crop",
        resize_to=max(to, side),
        mean=tuple(settings.get("image_mean") or IMAGENET_MEAN) if normalize else (0.0, 0.0, 0.0),
        std=tuple(settings.get("image_std") or IMAGENET_STD) if normalize else (1.0, 1.0, 1.0),
        interpolation=filters.get(settings.get("resample", 2), "bicubic"),
        rounds=False,
    )


def from_timm(settings: Mapping[str, Any], image_size: int | None, where: str) -> Preprocess:
    """Reads timm's data settings."""
    _, height, width = settings["input_size"]
    if height != width and image_size is None:
        raise GenretError(f"{where} takes pictures of {height} × {width}; genret needs square ones: set image_size")
    size = image_size or height
    return Preprocess(
        size=size,
        resize="crop" if settings.get("crop_mode", "center") == "center" else "squash",
        resize_to=max(size, math.floor(size / settings.get("crop_pct", 1.0))),
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        interpolation=settings["interpolation"] if settings["interpolation"] in FILTERS else "bicubic",
    )


def from_open_clip(settings: Mapping[str, Any], where: str) -> Preprocess:
    """Reads open_clip's `preprocess_cfg`."""
    side = _side(settings["size"])
    if side is None:
        raise GenretError(f"{where}: genret needs square pictures, not {settings['size']}")
    modes: dict[str, Resize] = {"shortest": "crop", "longest": "pad", "squash": "squash"}
    interpolation = settings.get("interpolation", "bicubic")
    return Preprocess(
        size=side,
        resize=modes[settings.get("resize_mode", "shortest")],
        resize_to=side,
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        interpolation=interpolation if interpolation in FILTERS else "bicubic",
        fill=int(settings.get("fill_color", 0)),
    )


def _side(size: Any) -> int | None:
    """The side of a square given as 224, [224, 224], {"height": 224, "width": 224} or {"shortest_edge": 224}."""
    if isinstance(size, Mapping):
        values = {size[key] for key in ("height", "width", "shortest_edge") if size.get(key) is not None}
    elif isinstance(size, (list, tuple)):
        values = set(size)
    else:
        values = {size}
    only = values.pop() if len(values) == 1 else None
    return only if isinstance(only, int) and only > 0 else None


def _edge(size: Any) -> tuple[int | None, bool]:
    """The size to resize to, and whether both sides are set."""
    return _side(size), isinstance(size, Mapping) and "height" in size
