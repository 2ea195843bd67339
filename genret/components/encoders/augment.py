"""Augmented views of an image, for training only: shifted, rotated, scaled, recoloured, blurred.

A view is a function of (seed, view number, pixels): it does not depend on the batch, the order or global random state,
so cached views stay valid and an interrupted encoding continues exactly.

B images   S side of the tower's square input
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field
from torch import Tensor

from genret.api import Config
from genret.components.encoders.preprocess import Preprocess

OVERSAMPLING = 1.25
"""Images are warped at this multiple of the input size, so that zoomed views stay sharp."""
NUM_DRAWS = 24
FLAT_SHARE = 0.6
"""Share of the border that must have one colour for the background to count as plain."""
SAME_COLOUR = 12 / 255


class ViewOptions(Config):
    """How training images are augmented."""

    strength: float = Field(1.0, ge=0, le=2)
    """Strength of the augmentation; 0: none."""
    flip: float = Field(0.0, ge=0, le=1)
    """Probability of a horizontal flip; 0 for images whose direction matters."""
    seed: int = Field(0, ge=0)
    """Seed of the views."""


class Augment:
    """Draws views. `strength` scales all of them; `flip` is the probability of a horizontal flip."""

    def __init__(self, strength: float, flip: float, seed: int):
        self.strength = strength
        self.flip = flip
        self.seed = seed

    def __call__(self, images: Sequence[Image.Image], view: int, preprocess: Preprocess) -> Tensor:
        """B images → (B, 3, S, S) in 0..1."""
        framed = preprocess.pixels(images, OVERSAMPLING)
        draws = torch.from_numpy(np.stack([self._draws(image, view) for image in images])).float()
        return self.warp(framed, draws, preprocess.size)

    def _draws(self, image: Image.Image, view: int) -> np.ndarray:
        digest = hashlib.blake2b(f"{self.seed}:{view}:{image.size}:".encode(), digest_size=16)
        digest.update(image.tobytes())
        return np.random.default_rng(int.from_bytes(digest.digest(), "little")).random(NUM_DRAWS)

    def warp(self, pixels: Tensor, draws: Tensor, size: int) -> Tensor:
        """(B, 3, S', S'), (B, NUM_DRAWS) uniform in 0..1 → (B, 3, S, S)."""
        ground, flat = background(pixels)  # (B, 3, 1, 1), (B,)
        spread, chance = draws[:, :12] * 2 - 1, draws[:, 12:]  # in -1..1 and in 0..1
        grid = self._grid(spread[:, :6], chance[:, 0] < self.flip, size)
        moved = torch.empty(len(pixels), 3, size, size)
        if flat.any():  # a plain background is continued beyond the border ...
            inner = F.grid_sample(pixels[flat] - ground[flat], grid[flat], padding_mode="zeros", align_corners=False)
            moved[flat] = inner + ground[flat]
        if not flat.all():  # ... and a photograph is reflected
            moved[~flat] = F.grid_sample(pixels[~flat], grid[~flat], padding_mode="reflection", align_corners=False)
        often = min(1.0, self.strength)
        coloured = self._colour(moved, spread[:, 6:], chance[:, 1] < 0.06 * often)
        # on a plain background only the figure changes colour; with a soft mask, since edges are blended
        figure = ((moved - ground).abs().amax(1, keepdim=True) * 8).clamp(0, 1)
        result = torch.where(_as_map(flat), moved + figure * (coloured - moved), coloured)
        # a white background is sometimes recoloured
        paper = 1 - 0.5 * chance[:, 2:5, None, None]
        on_paper = flat & (ground.amin((1, 2, 3)) > 0.9) & (chance[:, 5] < 0.25 * often)
        result = torch.where(_as_map(on_paper), result * paper, result)
        blurred = F.avg_pool2d(F.pad(result, (1, 1, 1, 1), mode="replicate"), 3, 1)
        return torch.where(_as_map(chance[:, 6] < 0.2 * often), blurred, result).clamp(0, 1)

    def _grid(self, spread: Tensor, mirrored: Tensor, size: int) -> Tensor:
        """(B, 6), (B,) → the source position of each pixel of the view, (B, S, S, 2)."""
        s = self.strength
        turn, scale, stretch, shear, right, down = spread.unbind(1)
        angle = turn * (15 * math.pi / 180) * s
        zoom = torch.exp((0.1 + 0.2 * scale) * s)  # above 1 the image is shrunk
        aspect = torch.exp(0.12 * stretch * s)
        mirror = torch.where(mirrored, -1.0, 1.0)
        cos, sin = angle.cos(), angle.sin()
        rows = [
            torch.stack([zoom * aspect * cos * mirror, -zoom / aspect * sin + 0.12 * s * shear, 0.12 * s * right], 1),
            torch.stack([zoom * aspect * sin * mirror, zoom / aspect * cos, 0.12 * s * down], 1),
        ]
        return F.affine_grid(torch.stack(rows, 1), [len(spread), 3, size, size], align_corners=False)

    def _colour(self, pixels: Tensor, spread: Tensor, grey_only: Tensor) -> Tensor:
        """(B, 3, S, S), (B, 6), (B,) → the same images with other colours and brightness."""
        s = self.strength
        hue, saturation, contrast, brightness, shade, direction = spread.unbind(1)
        turned = torch.einsum("bij,bjhw->bihw", _hue_rotation(0.25 * s * hue), pixels)
        grey = turned.mean(1, keepdim=True)
        keep = torch.exp(0.4 * s * saturation).masked_fill(grey_only, 0.0)
        vivid = grey + (turned - grey) * _as_map(keep)
        lit = (vivid - 0.5) * _as_map(torch.exp(0.3 * s * contrast)) + 0.5 + _as_map(0.1 * s * brightness)
        side = pixels.shape[-1]
        y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
        slope = _as_map((direction * math.pi).cos()) * x + _as_map((direction * math.pi).sin()) * y
        return (lit * (1 + _as_map(0.25 * s * shade.abs()) * slope)).clamp(0, 1)


def background(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 3, S, S) → the background's colour (B, 3, 1, 1) and whether it is plain (B,).

    It is plain if the four corners agree, or if most of the border has one colour.
    """
    corners = pixels[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]  # (B, 3, 4)
    corner = corners.mean(2, keepdim=True)
    agree = (corners - corner).abs().amax((1, 2)) < SAME_COLOUR
    top, bottom, left, right = pixels[:, :, 0], pixels[:, :, -1], pixels[:, :, :, 0], pixels[:, :, :, -1]
    border = torch.cat([top, bottom, left, right], 2)  # (B, 3, 4S)
    usual = border.median(2, keepdim=True).values
    share = ((border - usual).abs().amax(1) < SAME_COLOUR).float().mean(1)
    return torch.where(agree.view(-1, 1, 1), corner, usual).unsqueeze(-1), agree | (share >= FLAT_SHARE)


def _hue_rotation(angle: Tensor) -> Tensor:
    """(B,) → (B, 3, 3) hue rotations about the grey axis."""
    cos, sin = angle.cos(), angle.sin() * math.sqrt(1 / 3)
    same, back, forth = cos + (1 - cos) / 3, (1 - cos) / 3 - sin, (1 - cos) / 3 + sin
    rows = [torch.stack(row, 1) for row in ((same, back, forth), (forth, same, back), (back, forth, same))]
    return torch.stack(rows, 1)


def _as_map(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
