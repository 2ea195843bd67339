"""A small synthetic world: 36 images that captions distinguish, and 12 new ones of the same kind. Vectors, no pixels.

N images   T captions, two of each image   D width
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genret.api import Corpus, FitContext, Silent

WIDTH = 16
SUBJECTS = ("dog", "cat", "car", "boy", "horse", "boat")
PLACES = ("sea", "snow", "street", "forest", "field", "kitchen")


class World(NamedTuple):
    train: Corpus
    """36 images with their captions"""
    new: Corpus
    """12 images outside the fit; without captions, as when they are indexed"""


def make_world() -> World:
    """The same world every time, independent of torch's random state."""
    generator = torch.Generator().manual_seed(0)

    def directions(count: int) -> Tensor:
        return F.normalize(torch.randn(count, WIDTH, generator=generator), dim=-1)

    subjects, places, shift = directions(len(SUBJECTS)), directions(len(PLACES)), directions(1)
    pairs = [(one, other) for one in range(len(SUBJECTS)) for other in range(len(PLACES))]
    exact = torch.stack([subjects[one] + places[other] for one, other in pairs])

    def seen(rows: Tensor) -> Tensor:
        return F.normalize(rows + 0.1 * torch.randn(rows.shape, generator=generator), dim=-1)

    features = seen(exact)
    captions = [text for one, other in pairs for text in _captions(SUBJECTS[one], PLACES[other])]
    owners = torch.arange(len(pairs)).repeat_interleave(2)
    texts = F.normalize(seen(exact[owners]) + 0.3 * shift, dim=-1)
    views = torch.stack([features, seen(exact)], dim=1)
    train = Corpus([f"train-{row}" for row in range(len(pairs))], features, views, captions, texts, owners)
    new = torch.arange(0, len(pairs), 3)
    return World(train, Corpus([f"new-{row}" for row in range(len(new))], seen(exact[new])))


def _captions(subject: str, place: str) -> tuple[str, str]:
    return f"a {subject} in the {place}", f"{place} with one {subject}"


def _forget(row: dict[str, Any]) -> None:
    """Discards the metrics of a test."""


def context(folder: Path, seed: int = 0, device: torch.device | str = "cpu") -> FitContext:
    """The resources of a component during its fit."""
    return FitContext(seed, torch.device(device), folder, Silent().progress, _forget)


def rows_of(corpus: Corpus, rows: Tensor) -> Corpus:
    """Some of the images, in this order, without captions."""
    ids = [corpus.image_ids[row] for row in rows.tolist()]
    return Corpus(ids, corpus.features[rows], named_before=corpus.named_before)
