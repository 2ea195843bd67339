"""The default data set: emoji drawn by several designers, with their names as captions.

Training and search use different renderings. Split by rendering (the default), every searched concept is in training,
drawn by other designers; split by concept, searched concepts are not in training, and all skin tones, genders and
directions of a concept are in one split.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

from pydantic import Field, model_validator

import genret
from genret import BadImage, Dataset, GenretError, Record, UnknownName
from genret.toolbox.splits import hashed
from genret_starter.concepts import Concept, Language, base_of, concepts
from genret_starter.keywords import keywords, phrases
from genret_starter.renderings import Rendering, available, picture


class EmojiDataset(Dataset):
    class Config(genret.Config):
        split_by: Literal["rendering", "concept"] = "rendering"
        """`rendering`: search seen concepts in an unseen rendering; `concept`: search unseen concepts in it."""
        renderings: list[Rendering] = Field(["twemoji", "openmoji"], min_length=2)
        """Designers of the training images; the last one's are also used for the development split."""
        searched: Rendering = "noto"
        """Designer of the searched images."""
        languages: list[Language] = Field(["en"], min_length=1)
        """Languages of the names, one caption each."""
        aliases: bool = False
        """Add the short English names of chat programs to the training captions."""
        keywords: bool = False
        """Add training captions of what people call an emoji: one with all keywords, then single ones and short phrases
        of these ("drink", "tea please"), shared out among the designers."""
        dev_images: int = Field(500, ge=1)
        """Number of emoji in the development split, at most a fifth of all."""
        test_fraction: float = Field(0.25, gt=0, le=0.5)
        """With `split_by: concept`: share of the emoji whose concepts are only in the searched split."""
        split_seed: int = 0
        """Seed of the splits; independent of the training seed."""
        limit: int | None = Field(None, ge=10)
        """Number of emoji to use, chosen by a hash, for quick tests; null: all."""

        @model_validator(mode="after")
        def _unseen(self) -> Any:
            if self.searched in self.renderings:
                raise ValueError(f"searched: '{self.searched}' is also one of the renderings that are trained on")
            if len(set(self.renderings)) < len(self.renderings):
                raise ValueError("renderings: one is named twice")
            return self

    config: EmojiDataset.Config

    def __init__(self, config: Any = None, **context: Any):
        super().__init__(config, **context)
        self.concepts = "seen-concepts" if self.config.split_by == "rendering" else "unseen-concepts"

    def records(self, split: str) -> Iterator[Record]:
        config = self.config
        *_, last = config.renderings
        dev, test = self._held_out["dev"], self._held_out["test"]
        if split == self.dev_split:
            yield from self._draw(last, dev)
        elif split == self.test_split:
            yield from self._draw(config.searched, test)
        elif split == self.train_split:
            for rendering in config.renderings:
                if config.split_by == "concept":
                    hidden = dev | test
                else:
                    hidden = dev if rendering == last else frozenset()
                yield from self._draw(rendering, self._concepts.keys() - hidden, training=True)
        else:
            raise UnknownName("split", split, (self.train_split, self.dev_split, self.test_split))

    def read(self, record: Record) -> bytes:
        rendering, _, codes = record.image_id.partition("/")
        try:
            key = "".join(chr(int(code, 16)) for code in codes.split("-"))
        except ValueError as error:
            raise BadImage(f"{record.image_id} is no emoji of this data set") from error
        if rendering not in (*self.config.renderings, self.config.searched):
            raise BadImage(f"{record.image_id} is no emoji of this data set")
        return picture(rendering, key)  # type: ignore[arg-type]

    def _draw(self, rendering: Rendering, keys: Any, training: bool = False) -> Iterator[Record]:
        places = available(rendering)
        for key, concept in self._concepts.items():
            if key in keys and key in places:
                captions = concept.names
                if training and self.config.aliases:
                    captions += concept.aliases
                if training and self.config.keywords and (words := keywords(concept)):
                    place = self.config.renderings.index(rendering)
                    captions += (", ".join((concept.names[0], *words)),)
                    captions += phrases(concept)[place :: len(self.config.renderings)]
                metadata = {"emoji": concept.emoji, "rendering": rendering, "name": concept.names[0]}
                yield Record(f"{rendering}/{concept.codes}", places[key], captions, metadata)

    @cached_property
    def _concepts(self) -> dict[str, Concept]:
        """The emoji used, sorted: those with a name and at least one training image."""
        config = self.config
        drawn = set().union(*map(available, config.renderings))
        named = {key: concept for key, concept in concepts(tuple(config.languages)).items() if key in drawn}
        if config.limit is None:
            return named
        complete = drawn.intersection(*map(available, (*config.renderings, config.searched)))
        chosen = set(self._hashed_groups(complete & named.keys())[: config.limit])
        return {key: concept for key, concept in named.items() if key in chosen}

    @cached_property
    def _held_out(self) -> dict[str, frozenset[str]]:
        """Keys of the emoji of the development and the searched split, whether or not they have an image there."""
        num_dev = min(self.config.dev_images, len(self._concepts) // 5)
        if self.config.split_by == "rendering":
            *_, last = self.config.renderings
            drawn = self._concepts.keys() & available(last).keys()
            order = sorted(drawn, key=lambda key: hashed(key, self.config.split_seed))
            return {"dev": frozenset(order[:num_dev]), "test": frozenset(self._concepts)}
        order = self._hashed_groups(self._concepts)
        num_test = round(self.config.test_fraction * len(order))
        end_of_test = _group_end(order, num_test)
        end_of_dev = _group_end(order, end_of_test + num_dev)
        test, dev = order[:end_of_test], order[end_of_test:end_of_dev]
        if not dev or end_of_dev == len(order):
            raise GenretError(f"{len(order)} emoji are too few to split by concept; raise dataset.limit")
        return {"dev": frozenset(dev), "test": frozenset(test)}

    def _hashed_groups(self, keys: Any) -> list[str]:
        """Keys ordered by hash, with the variants of a concept together."""
        return sorted(keys, key=lambda key: (hashed(base_of(key), self.config.split_seed), base_of(key), key))


def _group_end(order: list[str], position: int) -> int:
    """The first position from `position` on that does not split a concept."""
    while 0 < position < len(order) and base_of(order[position - 1]) == base_of(order[position]):
        position += 1
    return position
