"""Sentences of no image in particular, as training queries: each belongs to the image nearest to it in the shared space.

That owner is only where hard targets start; the dense teacher (`teacher.py`) sees the sentence's own vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from genret.api import Corpus, Dataset
from genret.errors import GenretError
from genret.train.artifacts import content_key
from genret.train.targets import dense_neighbours

SENTENCES = "sentences.json"
"""The held-out sentences of a run: what it can be measured on without captions."""
HELD_OUT = 1000
"""Maximum number of sentences that are held out, of every tenth."""


class Sentences(NamedTuple):
    learnt: list[str]
    held_out: list[str]


def split_sentences(source: Dataset) -> Sentences:
    """The distinct captions of the source's training split; which are held out depends on their words alone."""
    texts = list(dict.fromkeys(text for record in source.records(source.train_split) for text in record.captions))
    if not texts:
        raise GenretError("texts: the source has no sentence to learn from")
    held = [text for text in texts if int(content_key(text), 16) % 10 == 0][:HELD_OUT]
    away = set(held)
    return Sentences([text for text in texts if text not in away] or texts, held)


def taught_by(texts: Sequence[str], corpus: Corpus, encode: Callable[[Sequence[str]], Tensor]) -> Corpus:
    """The corpus with `texts` as its captions. `encode`: texts → (T, D) unit rows."""
    if not texts:
        return corpus.without_captions()
    vectors = encode(texts)
    nearest = dense_neighbours(vectors, corpus.features, 1, 1.0).images[:, 0]
    return corpus._replace(captions=list(texts), text_features=vectors, owners=nearest)
