"""What a caption is taught to write.

The plain target is the identifier of the caption's own picture (Eqn. 7). A searched picture is a different one, whose
codes differ a little; so a caption may also be taught, now and then, the identifier of its picture seen differently
(another view, noise on its vector) or of a picture that the dense ranker finds just as fitting. All of these are one
thing: for each caption a small distribution over identifiers, from which every epoch draws anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

CHUNK = 1024


class Targets(NamedTuple):
    """T captions, R distinct identifiers, C choices for each caption."""

    codes: Tensor
    """(R, M) or, for identifiers of ordinary tokens, (R, 1) row numbers"""
    choices: Tensor
    """(T, C) rows of `codes`"""
    weights: Tensor
    """(T, C) how often each is drawn"""

    def draw(self, captions: Tensor) -> Tensor:
        """(B,) captions → (B,) rows of `codes`, by torch's global random state."""
        weights = self.weights[captions]
        if weights.shape[1] == 1:
            return self.choices[captions, 0]
        pick = torch.multinomial(weights, 1)
        return self.choices[captions].gather(1, pick)[:, 0]

    def save(self, folder: Path) -> None:
        save_file({key: value.contiguous() for key, value in self._asdict().items()}, folder / "targets.safetensors")

    @classmethod
    def load(cls, folder: Path) -> Targets:
        return cls(**load_file(folder / "targets.safetensors"))


class Neighbours(NamedTuple):
    images: Tensor
    """(T, n) the nearest pictures of each caption, in the shared space"""
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
    """Choices and weights of every caption.

    owners (T,): the picture of each caption; rows_of_image (N, A): the A identifiers that stand for each picture, drawn
    alike; `share` of the draws go to the neighbours' identifiers. → (T, C) and (T, C)
    """
    own = rows_of_image[owners]
    weights = torch.full(own.shape, 1.0 / own.shape[1])
    if neighbours is None or share == 0.0:
        return own, weights
    others = rows_of_image[neighbours.images, torch.arange(neighbours.images.shape[1]) % rows_of_image.shape[1]]
    return torch.cat([own, others], dim=1), torch.cat([weights * (1 - share), neighbours.weights * share], dim=1)
