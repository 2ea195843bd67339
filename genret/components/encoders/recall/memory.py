"""The training images, towards which vectors are drawn: kernel regression (Nadaraya; Watson; 1964).

A head is unsure of what is unlike its training. There the mean of the training images that a picture or a text
resembles, weighted by softmax(similarity / temperature), says more. What a text resembles, the text tower tells
from the images' captions, and so it holds for words that are in no caption. And a picture is found by what the text
tower knows of words: its vector gets the mean of the captions of what it resembles, a text's gets the text itself.

N training images, D width of the shared space, W of the text tower's.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from genret.api import Config
from genret.components.encoders.recall.likeness import CROWDING, crowding, joined, likeness, main_directions

AT_ONCE = 256
"""Number of vectors compared with all training images at a time, which bounds memory."""


class MemoryOptions(Config):
    """How vectors are drawn towards the training images that they are like (`recall.Memory`)."""

    weight: float = Field(1.0, gt=0, le=100)
    """Weight of the mean of those images, beside the head's own vector with 1."""
    words: float = Field(1.0, ge=0, le=100)
    """Weight of the text tower's own space, beside both with 1: of a text's vector there, and of the mean of the
    captions of the images that a picture is like."""
    image_temperature: float = Field(0.04, gt=0)
    """Temperature of the softmax over an image's similarities to training images."""
    text_temperature: float = Field(0.02, gt=0)
    """The same for a text and the training images' captions, as the text tower reads them."""


class Memory(NamedTuple):
    images: Tensor
    """(N, D) unit rows, as the image head makes them"""
    captions: Tensor
    """(N, W) unit rows: the mean of the text tower's vectors of an image's captions"""
    likeness: Tensor
    """(D_image, K) from an image's features to what else images are compared by"""
    keys: Tensor
    """(N, D + K) unit rows: what images are compared by"""
    crowding: Tensor
    """(N,)"""
    centre: Tensor
    """(W,) mean of the captions"""
    basis: Tensor
    """(D + W, D) from a vector beside its words to the shared space"""

    @classmethod
    def of(cls, images: Tensor, features: Tensor, captions: Tensor, classes: Tensor, words: float) -> Self:
        """Of N images: the head's vectors, standardized features, captions and what each shows, an id.

        Images without captions (zero rows) stay out.
        """
        known = captions.any(1)
        images, features, captions, classes = images[known], features[known], captions[known], classes[known]
        alike = likeness(features, classes)
        keys = joined(images, features @ alike)
        centre = captions.mean(0)
        whole = torch.cat([images, words * _unit(captions - centre)], 1)
        return cls(images, captions, alike, keys, crowding(keys), centre, main_directions(whole, images.shape[1]))

    def to(self, device: torch.device | str) -> Self:
        return type(self)(*(part.to(device) for part in self))

    def image(self, vectors: Tensor, features: Tensor, options: MemoryOptions) -> Tensor:
        """(B, D) unit rows of the image head, and standardized features → (B, D) unit rows"""
        images, captions = [], []
        for part in joined(vectors, features @ self.likeness).split(AT_ONCE):
            shares = _shares(part @ self.keys.T - CROWDING * self.crowding, options.image_temperature)
            images.append(shares @ self.images)
            captions.append(shares @ self.captions)
        return self._whole(vectors, torch.cat(images), _unit(torch.cat(captions)), options)

    def text(self, vectors: Tensor, read: Tensor, options: MemoryOptions) -> Tensor:
        """(B, D) unit rows of the text head, and (B, W) unit rows of the text tower → (B, D) unit rows"""
        similarities = (part @ self.captions.T for part in read.split(AT_ONCE))
        images = [_shares(part, options.text_temperature) @ self.images for part in similarities]
        return self._whole(vectors, torch.cat(images), read, options)

    def _whole(self, vectors: Tensor, recalled: Tensor, words: Tensor, options: MemoryOptions) -> Tensor:
        drawn = _unit(vectors + options.weight * _unit(recalled))
        return _unit(torch.cat([drawn, options.words * _unit(words - self.centre)], 1) @ self.basis)


def caption_means(texts: Tensor, owners: Tensor, count: int, first: Tensor) -> Tensor:
    """(T, W) and the images (T,) of T captions → (N, W) unit rows of N = `count` images; zero without captions.

    The `first` captions, by their rows, count as much as all others together: they are the names.
    """
    named = torch.zeros(len(texts), dtype=torch.bool)
    named[first] = True
    unit, halves = _unit(texts.float()), texts.new_zeros(count, texts.shape[1], dtype=torch.float32)
    for part in (named, ~named):
        halves = halves + _unit(torch.zeros_like(halves).index_add_(0, owners[part], unit[part]))
    return _unit(halves)


def _shares(similarities: Tensor, temperature: float) -> Tensor:
    return (similarities / temperature).softmax(1)


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows, dim=-1)
