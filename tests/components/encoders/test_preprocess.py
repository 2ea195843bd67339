"""Pixels against the transforms of torchvision, and view draws that depend on nothing but the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from genret.components.encoders.augment import Augment, background
from genret.components.encoders.preprocess import Preprocess, from_transformers
from genret.errors import GenretError

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize("size", [(48, 48), (64, 41), (40, 73), (300, 50)])
def test_pixels_equal_torchvision(size: tuple[int, int]) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    crop = transforms.Compose(
        [
            transforms.Resize(36, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize(*HALF),
        ]
    )
    ours = Preprocess(32, "crop", 36, *HALF)
    assert torch.equal(ours.normalize(ours.pixels([picture]))[0], crop(picture))
    squash = transforms.Compose(
        [transforms.Resize((32, 32), transforms.InterpolationMode.BICUBIC), transforms.ToTensor()]
    )
    assert torch.equal(ours.with_resize("squash").pixels([picture])[0], squash(picture))


def test_padding_keeps_the_whole_picture_on_white() -> None:
    black = Image.new("RGB", (64, 32))
    pixels = Preprocess(32, "crop", 32, *HALF).with_resize("pad").pixels([black])[0]
    assert (pixels[:, 8:24] == 0).all() and (pixels[:, :8] == 1).all() and (pixels[:, 24:] == 1).all()


@pytest.mark.parametrize("size", [(1, 1), (20_000, 2), (2, 20_000)])
@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
def test_oblong_pictures_cost_little(size: tuple[int, int], resize: str) -> None:
    preprocess = Preprocess(32, resize, 32, *HALF)  # type: ignore[arg-type]
    assert preprocess.pixels([Image.new("RGB", size, (7, 7, 7))]).shape == (1, 3, 32, 32)


def test_other_modes_and_unknown_sizes() -> None:
    assert Preprocess(8, "squash", 8, *HALF).pixels([Image.new("L", (9, 9), 51)]).allclose(torch.tensor(0.2))
    with pytest.raises(GenretError, match="square"):
        from_transformers({"size": {"height": 20, "width": 30}}, "somewhere")


PLAIN = Preprocess(32, "squash", 32, *HALF)


def test_views_are_a_function_of_picture_and_number(pictures: list[Image.Image]) -> None:
    augment = Augment(1.0, 0.0, seed=0)
    batch = augment(pictures, 1, PLAIN)
    alone = torch.cat([Augment(1.0, 0.0, seed=0)([picture.copy()], 1, PLAIN) for picture in reversed(pictures)])
    assert torch.equal(batch, alone.flip(0)) and batch.min() >= 0 and batch.max() <= 1
    torch.rand(3)  # the global random state has no say
    assert torch.equal(batch, augment(pictures, 1, PLAIN))
    for other in (augment(pictures, 2, PLAIN), Augment(1.0, 0.0, seed=1)(pictures, 1, PLAIN), PLAIN.pixels(pictures)):
        assert ((batch - other).abs().mean((1, 2, 3)) > 0.005).all()


def test_no_strength_is_the_plain_picture_and_flip_its_mirror(pictures: list[Image.Image]) -> None:
    plain = PLAIN.pixels(pictures)
    still, mirrored = (Augment(0.0, flip, seed=0)(pictures, 1, PLAIN) for flip in (0.0, 1.0))
    assert (still - plain).abs().mean() < 0.02  # warped from a larger square
    assert torch.equal(mirrored, still.flip(3)) or (mirrored - still.flip(3)).abs().max() < 1e-4


def test_grounds_are_told_from_photographs(pictures: list[Image.Image]) -> None:
    figure = Image.new("RGB", (40, 40), (255, 255, 255))
    figure.paste((200, 0, 0), (8, 8, 32, 40))
    colour, flat = background(PLAIN.pixels([figure, pictures[0]]))
    assert flat.tolist() == [True, False] and colour[0].flatten().tolist() == [1, 1, 1]
    corners = torch.stack([Augment(1.0, 0.0, seed=s)([figure], 1, PLAIN)[0, :, 0, 0] for s in range(20)])
    assert (corners.amin(1) > 0.99).sum() >= 10  # more of the ground, mostly in its own colour
