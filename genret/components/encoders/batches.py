"""Batches of pixels: the next batch is read and decoded during the training step of the current one.

Memory holds two batches, whatever the size of the data set. Unreadable images are left out of their batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from genret.errors import BadImage
from genret.kit.encode import NUM_THREADS, opened


class Batch(NamedTuple):
    pixels: Tensor
    """(B', 3, S, S) in 0..1 of the readable images"""
    indices: Tensor
    """(B',) the indices of these images"""


class Batches:
    """`batch(step)` returns pixels and starts to read those of the next step.

    `examples(step)`: the images' indices and the epoch of a step; None after the last one.
    """

    def __init__(
        self,
        read: Sequence[Callable[[], Image.Image]],
        pixels: Callable[[Sequence[Image.Image], int], Tensor],
        examples: Callable[[int], tuple[Tensor, int] | None],
        pools: tuple[ThreadPoolExecutor, ThreadPoolExecutor],
    ):
        self._read, self._pixels, self._examples = read, pixels, examples
        self._ahead, self._readers = pools
        self._begun: dict[int, Future[Batch]] = {}

    def batch(self, step: int) -> Batch:
        future = self._begun.pop(step, None) or self._begin(step)  # the first step of a new or resumed run
        assert future is not None, "no step comes after the last"
        if (following := self._begin(step + 1)) is not None:
            self._begun = {step + 1: following}
        return future.result()

    def _begin(self, step: int) -> Future[Batch] | None:
        found = self._examples(step)
        return None if found is None else self._ahead.submit(self._made, found[0].tolist(), found[1])

    def _made(self, indices: list[int], epoch: int) -> Batch:
        pictures = list(self._readers.map(self._picture, indices))
        there = [(index, picture) for index, picture in zip(indices, pictures, strict=True) if picture is not None]
        images = [picture for _, picture in there]
        pixels = self._pixels(images, epoch) if images else torch.zeros(0, 3, 1, 1)
        return Batch(pixels, torch.tensor([index for index, _ in there], dtype=torch.int64))

    def _picture(self, index: int) -> Image.Image | None:
        try:
            return opened(self._read[index])
        except BadImage:  # reported when the split is encoded
            return None


@contextmanager
def reading_ahead() -> Iterator[tuple[ThreadPoolExecutor, ThreadPoolExecutor]]:
    """One thread that prepares the next batch, and several that decode its images."""
    ahead = ThreadPoolExecutor(1, thread_name_prefix="genret-batch")
    readers = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="genret-decode")
    try:
        yield ahead, readers
    finally:
        ahead.shutdown(wait=True, cancel_futures=True)
        readers.shutdown(wait=True, cancel_futures=True)
