"""The training targets of the captions.

The plain target is the identifier of the caption's own image (Eqn. 7). Test images differ from it, and so do their
codes, a little. So a caption may sometimes have another target: the identifier of a changed vector of its image
(another view, or noise), or that of an image that the dense ranker finds equally relevant. All of these have one form:
each caption has a small distribution over identifiers, which is sampled anew in every epoch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from genret.api import Corpus, Identifier, Identifiers
from genret.errors import GenretError, one_line
from genret.kit.files import read_json
from genret.recipe.schema import TrainOptions

CHUNK = 1024
NEIGHBOURS = 32
"""Number of images among which the dense ranker's target is sampled."""


class Targets(NamedTuple):
    """T captions, R identifiers, C choices for each caption."""

    identifiers: Identifiers
    """(R,) the first `num_own` of them are the training images' own; the rest are variants."""
    num_own: int
    choices: Tensor
    """(T, C) rows of `identifiers`"""
    weights: Tensor
    """(T, C) the probability of each"""

    def draw(self, captions: Tensor) -> Tensor:
        """(B,) captions → (B,) rows of `identifiers`, sampled with torch's global random state."""
        choices = self.choices[captions]
        if choices.shape[1] == 1:
            return choices[:, 0]
        return choices.gather(1, torch.multinomial(self.weights[captions], 1))[:, 0]

    @property
    def own(self) -> Identifiers:
        """The training images' own identifiers: the candidates of L_dis."""
        owners, codes, texts = self.identifiers
        count = self.num_own
        return Identifiers(
            owners[:count], None if codes is None else codes[:count], None if texts is None else texts[:count]
        )

    def images(self, captions: Tensor) -> Tensor:
        """(B,) captions → (B,) the training image of each."""
        return self.identifiers.owners[self.choices[captions, 0]]

    def save(self, folder: Path) -> None:
        owners, codes, texts = self.identifiers
        tensors = {"owners": owners, "choices": self.choices, "weights": self.weights}
        if codes is not None:
            tensors["codes"] = codes
        save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "targets.safetensors")
        (folder / "targets.json").write_text(json.dumps({"num_own": self.num_own, "texts": texts}))

    @classmethod
    def load(cls, folder: Path) -> Targets:
        try:
            tensors = load_file(folder / "targets.safetensors")
            plain = read_json(folder / "targets.json")
            identifiers = Identifiers(tensors["owners"], tensors.get("codes"), plain["texts"])
            return cls(identifiers, plain["num_own"], tensors["choices"], tensors["weights"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise GenretError(f"{folder} holds no usable targets ({one_line(error)})") from error


def make_targets(train: Corpus, identifier: Identifier, options: TrainOptions) -> Targets:
    """Identifies the training images and their variants, and finds alternative targets for each caption."""
    assert train.owners is not None
    own = identifier.identify(train)
    parts = [own]
    for features in _variants(train, options):
        parts.append(identifier.identify(train._replace(features=features)))
    identifiers = _joined(parts)
    rows = rows_of_images(identifiers.owners, len(train.features))
    neighbours = None
    if options.dense_targets > 0:
        assert train.text_features is not None
        neighbours = dense_neighbours(train.text_features, train.features, NEIGHBOURS, options.dense_temperature)
    choices, weights = mix(train.owners, rows, neighbours, options.dense_targets)
    return Targets(identifiers, len(own.owners), choices, weights)


def _variants(train: Corpus, options: TrainOptions) -> list[Tensor]:
    """Other vectors of the same images, each (N, D): their views, and noise on each of them."""
    views = [train.features]
    if options.target_views and train.views is not None:
        views = list(train.views.unbind(1))
    variants = views[1:]
    if options.target_noise > 0:
        generator = torch.Generator().manual_seed(options.seed)
        for view in views:
            for _ in range(max(1, options.target_samples // len(views))):
                noise = torch.randn(view.shape, generator=generator) * options.target_noise / view.shape[1] ** 0.5
                variants.append(F.normalize(view + noise, dim=-1))
    return variants


class Neighbours(NamedTuple):
    images: Tensor
    """(T, n) the nearest images of each caption, in the shared space"""
    weights: Tensor
    """(T, n) softmax of their similarities"""


def dense_neighbours(texts: Tensor, images: Tensor, count: int, temperature: float) -> Neighbours:
    """texts (T, D), images (N, D), unit rows → the n nearest images of each text, in bounded memory."""
    count = min(count, len(images))
    found = [(part @ images.T).topk(count, dim=1) for part in texts.split(CHUNK)]
    similarity = torch.cat([top.values for top in found])
    return Neighbours(torch.cat([top.indices for top in found]), (similarity / temperature).softmax(dim=1))


def mix(
    owners: Tensor, rows_of_image: Tensor, neighbours: Neighbours | None = None, share: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Choices and weights of every caption, (T, C) and (T, C).

    owners (T,): the image of each caption; rows_of_image (N, A): the A identifiers of each image, sampled uniformly;
    `share`: the probability of the neighbours' identifiers.
    """
    own = rows_of_image[owners]
    weights = torch.full(own.shape, 1.0 / own.shape[1])
    if neighbours is None or share == 0.0:
        return own, weights
    variant = torch.arange(neighbours.images.shape[1]) % rows_of_image.shape[1]
    others = rows_of_image[neighbours.images, variant]
    return torch.cat([own, others], dim=1), torch.cat([weights * (1 - share), neighbours.weights * share], dim=1)


def _joined(parts: list[Identifiers]) -> Identifiers:
    owners = torch.cat([part.owners for part in parts])
    if parts[0].codes is not None:
        return Identifiers(owners, codes=torch.cat([part.codes for part in parts if part.codes is not None]))
    return Identifiers(owners, texts=[text for part in parts for text in part.texts or ()])


def rows_of_images(owners: Tensor, num_images: int) -> Tensor:
    """(R,) owners → (N, A) the rows of each image; images with fewer than A repeat theirs."""
    order = torch.argsort(owners, stable=True)
    counts = torch.bincount(owners, minlength=num_images)
    assert bool((counts > 0).all()), "every training image has an identifier"
    place = torch.arange(int(counts.max()))[None, :] % counts[:, None]
    return order[(counts.cumsum(0) - counts)[:, None] + place]
