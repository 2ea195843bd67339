"""`check_encoder`: reproducible vectors of two towers, and heads that learn a shared space.

N images   W views   T captions   D width
"""

from __future__ import annotations

import tempfile
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from genret.api import CaptionedImages, Encoder, Pairs
from genret.testing.config import check_config, made
from genret.testing.world.corpus import context
from genret.testing.world.expect import Checked, same
from genret.testing.world.miniature import expect_better_than_chance, seeded

COLOURS = ("red", "green", "blue", "yellow", "black")
SHAPES = ("square", "circle", "line", "cross")
TOLERANCE = 1e-3
"""Tolerance: results of a batch and of single rows may round differently."""


def check_encoder(encoder: type[Encoder], /, *, beats_chance: bool = True, **options: Any) -> None:
    """Checks an encoder with these options against its contract; `ContractError` says what to change.

    Vectors are float32 on the CPU, the same each time and in any batch; both modalities are projected to unit rows of
    one space; the same seed gives the same heads; a loaded encoder projects like the saved one; a dense search among
    the images of the fit beats chance. `beats_chance=False`: for untrained weights, such as random ones in a test.
    """
    check_config(encoder, **options)
    checked, drawn = Checked(encoder), draw()
    first, second = made(encoder, options), made(encoder, options)
    if first.finetunes:
        check_finetuning(checked, first, second, drawn)
    check_towers(checked, first, second, drawn)
    pairs = _pairs(first, drawn)
    with tempfile.TemporaryDirectory() as folder:
        for attempt, one in enumerate((first, second)):
            seeded(attempt + 1)
            with checked.doing("fit() was called"):
                one.fit(pairs, pairs, context(Path(folder) / f"fit-{attempt}", seed=7))
    images, texts = check_projections(checked, first, pairs)
    checked.expect(
        same(_project(second, pairs).images, images, TOLERANCE),
        "two fits with one seed give different heads; draw random numbers from a generator seeded by context.seed",
    )
    check_files(checked, first, made(encoder, options), pairs)
    if beats_chance:
        check_search(checked, images, texts, pairs.owners)


class Drawn(NamedTuple):
    pictures: list[Image.Image]
    captions: list[str]
    owners: list[int]


def draw() -> Drawn:
    """20 images with two captions each, of colour and shape."""
    pictures, captions, owners = [], [], []
    for number, (colour, shape) in enumerate(product(COLOURS, SHAPES)):
        image = Image.new("RGB", (48, 48), "white")
        pen, box = ImageDraw.Draw(image), (9, 9, 39, 39)
        if shape == "square":
            pen.rectangle(box, fill=colour)
        elif shape == "circle":
            pen.ellipse(box, fill=colour)
        else:
            pen.line(box, fill=colour, width=7)
            if shape == "cross":
                pen.line((9, 39, 39, 9), fill=colour, width=7)
        pictures.append(image)
        captions += [f"a {colour} {shape}", f"{shape} in {colour}"]
        owners += [number, number]
    return Drawn(pictures, captions, owners)


def check_towers(checked: Checked, encoder: Encoder, other: Encoder, drawn: Drawn) -> None:
    for modality in ("image", "text"):
        with checked.doing(f"tower_key('{modality}') was called"):
            key, again = (one.tower_key(modality) for one in (encoder, other))  # type: ignore[arg-type]
        checked.expect(isinstance(key, str) and key, f"tower_key('{modality}') is {key!r}; return a text")
        checked.expect(
            key == again or encoder.finetunes,
            f"tower_key('{modality}') differs between two encoders with the same options; leave out addresses, times "
            "and random numbers, or vectors are never found again",
        )
    checked.expect(encoder.num_views >= 1, f"num_views is {encoder.num_views}; count the plain picture, too")
    for view in range(min(encoder.num_views, 3)):
        what = f"image_features(view={view})"
        with checked.doing(f"{what} was called"):
            seeded(1)
            vectors = encoder.image_features(drawn.pictures, view)
            seeded(2)
            again_vectors = encoder.image_features(drawn.pictures, view)
            alone = encoder.image_features(drawn.pictures[3:4], view)
        _check_rows(checked, what, vectors, again_vectors, alone, 3, len(drawn.pictures))
        checked.expect(
            len(torch.unique(vectors, dim=0)) > 1, f"{what} gives all pictures one vector; look at the pixels"
        )
    with checked.doing("text_features() was called"):
        vectors = encoder.text_features(drawn.captions)
        again_vectors = encoder.text_features(drawn.captions)
        alone = encoder.text_features(["a rather long sentence about nothing", drawn.captions[5]])[1:]
    _check_rows(checked, "text_features()", vectors, again_vectors, alone, 5, len(drawn.captions))


def _check_rows(checked: Checked, what: str, vectors: Any, again: Tensor, alone: Tensor, row: int, count: int) -> None:
    table = checked.tensor(vectors, what, (count, "D"), torch.float32)
    checked.on_cpu(table, what)
    checked.expect(not table.requires_grad, f"{what} carries gradients; compute it under torch.no_grad()")
    checked.expect(
        same(again, table, 1e-5),
        f"{what} differs from call to call; switch dropout off (module.eval()) and draw augmentations from what is "
        "known (the picture and the view), not from the global random state",
    )
    checked.expect(
        same(alone[0], table[row], TOLERANCE),
        f"{what} of a row changes with the rows beside it; mask padding, and keep batch statistics out (module.eval())",
    )


def _pairs(encoder: Encoder, drawn: Drawn) -> Pairs:
    views = [encoder.image_features(drawn.pictures, view) for view in range(encoder.num_views)]
    return Pairs(torch.stack(views, dim=1), encoder.text_features(drawn.captions), torch.tensor(drawn.owners))


class Projected(NamedTuple):
    images: Tensor
    texts: Tensor


def _project(encoder: Encoder, pairs: Pairs) -> Projected:
    with torch.no_grad():
        return Projected(encoder.project_images(pairs.images[:, 0]), encoder.project_texts(pairs.texts))


def check_projections(checked: Checked, encoder: Encoder, pairs: Pairs) -> Projected:
    with checked.doing("project_images() and project_texts() were called"):
        found = _project(encoder, pairs)
    checked.tensor(found.images, "project_images()", (len(pairs.images), "D"))
    checked.tensor(found.texts, "project_texts()", (len(pairs.texts), "D"))
    checked.expect(
        found.images.shape[1] == found.texts.shape[1],
        f"pictures end in {found.images.shape[1]} dimensions, texts in {found.texts.shape[1]}; make them one space",
    )
    checked.unit_rows(found.images, "project_images()")
    checked.unit_rows(found.texts, "project_texts()")
    again = _project(encoder, pairs)
    checked.expect(
        same(again.images, found.images) and same(again.texts, found.texts),
        "projections differ from call to call; switch dropout off after fit() (module.eval())",
    )
    return found


def check_files(checked: Checked, encoder: Encoder, other: Encoder, pairs: Pairs) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "saved"
        folder.mkdir()
        with checked.doing("save() was called"):
            encoder.save(folder)
        checked.plain_files(folder)
        with checked.doing("load() was called in a new object"):
            other.load(folder)
    with checked.doing("to() was called"):
        other.to(torch.device("cpu"))
    saved, loaded = _project(encoder, pairs), _project(other, pairs)
    checked.expect(
        same(saved.images, loaded.images, 1e-5) and same(saved.texts, loaded.texts, 1e-5),
        "after save() and load() projections differ; save all that fit() learns",
    )


def check_finetuning(checked: Checked, encoder: Encoder, other: Encoder, drawn: Drawn) -> None:
    """Trained towers have another key, and their vectors are restored from disk."""
    before = encoder.tower_key("image"), encoder.tower_key("text")
    read = [lambda picture=picture: picture for picture in drawn.pictures]
    pictures = CaptionedImages(read, drawn.captions, drawn.owners)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "towers"
        folder.mkdir()
        with checked.doing("fit_towers() and save_towers() were called (finetunes is True)"):
            encoder.fit_towers(pictures, pictures, context(Path(name) / "fit"))
            encoder.save_towers(folder)
        checked.plain_files(folder)
        with checked.doing("load_towers() was called"):
            encoder.load_towers(folder, "some-key")
            other.load_towers(folder, "some-key")
    after = encoder.tower_key("image"), encoder.tower_key("text")
    checked.expect(
        before != after,
        "tower_key() is the same after load_towers(); make the given key part of it, or old vectors are used",
    )
    checked.expect(
        same(encoder.image_features(drawn.pictures), other.image_features(drawn.pictures), TOLERANCE),
        "fine-tuned towers give other vectors after save_towers() and load_towers(); save all that was trained",
    )


def check_search(checked: Checked, images: Tensor, texts: Tensor, owners: Tensor) -> None:
    """Dense search among the images that the heads were fitted on."""
    found = (texts @ images.T).argmax(1)
    recall = float((found == owners).float().mean())
    advice = "Check that fit() learns, or pass beats_chance=False where weights are random and there is nothing to fit"
    expect_better_than_chance(checked, len(images), recall, advice, times=3)
