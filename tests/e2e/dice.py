"""A plugin file with retrievers: one that throws dice, and one of genret's own that learns something besides."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import genret
from genret.components.retrievers.generative import GenerativeRetriever


class Dice(genret.CatalogRetriever):
    """Scores of images by chance, always the same for the same words."""

    learns = True

    class Config(genret.Config):
        seed: int = 0
        """Of the dice."""

    def fit(self, train: Any, context: Any) -> None:
        self.learned = len(train.features)

    def save(self, folder: Path) -> None:
        (folder / "dice.json").write_text(json.dumps(self.learned))

    def load(self, folder: Path) -> None:
        self.learned = json.loads((folder / "dice.json").read_text())

    def build_index(self, view: Any, keys: Any) -> Any:
        return keys

    def candidates(
        self, view: Any, index: Any, batch: Any, k: int, num_beams: Any, allowed: Sequence[Any]
    ) -> genret.Ranked:
        shape = len(batch), max(1, min(self.depth(k), len(index)))
        ranked = genret.Ranked(np.full(shape, -1), np.full(shape, -np.inf, np.float32), np.full(shape, -1))
        for row, (text, some) in enumerate(zip(batch.texts, allowed, strict=True)):
            keys = index[some.among(index)]
            scores = thrown((self.config.seed, self.learned), text, keys)
            best = np.argsort(-scores, kind="stable")[: shape[1]]
            ranked.images[row, : len(best)], ranked.scores[row, : len(best)] = keys[best], scores[best]
        return ranked


def thrown(seeds: Sequence[int], text: str, keys: Any) -> Any:
    """A number for each key, whatever others there are."""
    dice = np.random.default_rng([*seeds, zlib.crc32(text.encode())])
    return dice.random(int(keys.max(initial=0)) + 1)[keys].astype(np.float32)


class Learner(GenerativeRetriever):
    """Identifiers, and a stage of its own."""

    learns = True


@genret.hookimpl
def register_retrievers(register: Any) -> None:
    register("dice", Dice)
    register("learner", Learner)
