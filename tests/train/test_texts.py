"""Sentences in place of captions: each with the image nearest to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

from genret.api import Corpus, Dataset, Record
from genret.train.protocols import taught_by

TEXTS = {"train": (("a", "b", "a"), ("c",)), "dev": ((),)}


class Source(Dataset):
    def records(self, split: str) -> Iterator[Record]:
        yield from (Record(str(number), "", texts) for number, texts in enumerate(TEXTS[split]))

    def read(self, record: Record) -> bytes:
        raise AssertionError("only words are asked for")


def test_distinct_sentences_and_their_nearest_images() -> None:
    random = torch.Generator().manual_seed(0)
    images = F.normalize(torch.randn(5, 4, generator=random), dim=-1)
    vectors = F.normalize(torch.randn(3, 4, generator=random), dim=-1)

    def encode(texts: Sequence[str]) -> torch.Tensor:
        assert list(texts) == ["a", "b", "c"]
        return vectors

    known = Corpus(list("vwxyz"), images, None, ["true"], images[:1], torch.tensor([0]))
    taught = taught_by(Source(), "train", known, encode)
    assert taught.captions == ["a", "b", "c"] and taught.text_features is vectors
    assert taught.owners is not None
    assert taught.owners.tolist() == [max(range(5), key=lambda n: float(images[n] @ text)) for text in vectors]
    assert taught.features is images and taught.image_ids == known.image_ids
    bare = taught_by(Source(), "dev", known, encode)
    assert not bare.captions and bare.owners is None
