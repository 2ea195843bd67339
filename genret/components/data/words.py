"""Sentences composed from word lists that come with installed packages, for a recipe's slot `texts`.

The lists name what pictures show, which general dictionaries do not tell apart, and are installed with genret anyway:

    open_clip    ImageNet's 1,000 classes in readable words, and CLIP's 80 prompts (MIT)
    timm         11,821 nouns of ImageNet-12k (Apache-2.0; the nouns are WordNet 3.0's, under the WordNet licence)
    torchvision  COCO's 80 things and Kinetics' 400 actions (BSD-3-Clause)

Colours, places, people and how they are joined are this file's own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

from pydantic import Field

from genret.api import Config
from genret.components.data.sentences import TextSource

LOOKS = (
    *("red", "blue", "green", "yellow", "white", "black", "brown", "grey", "orange", "purple", "pink", "golden"),
    *("small", "large", "old", "new", "young", "beautiful", "wet", "broken", "colourful", "shiny", "dark", "bright"),
    *("wooden", "striped", "round", "tall", "furry", "sleeping", "flying", "happy"),
)
PEOPLE = (
    *("a man", "a woman", "a boy", "a girl", "a child", "a baby", "two people", "two men", "two women", "three people"),
    *("a group of people", "some children", "an old man", "a young woman", "a crowd", "a person", "somebody"),
)
CLOTHES = ("shirt", "jacket", "hat", "dress", "coat", "sweater", "uniform", "T-shirt", "helmet")
PLACES = (
    *("on the beach", "in the snow", "in the water", "on the grass", "in a park", "on the street", "in the city"),
    *(
        "in the mountains",
        "in a forest",
        "in a field",
        "at night",
        "indoors",
        "in the kitchen",
        "in a room",
        "in a garden",
    ),
    *(
        "by the sea",
        "on a lake",
        "on a road",
        "in front of a building",
        "at sunset",
        "in the sky",
        "on a rock",
        "in a pool",
    ),
    *(
        "on a white background",
        "on the floor",
        "in the desert",
        "by a river",
        "in a stadium",
        "at a party",
        "on a stage",
    ),
)
JOINTS = ("and", "with", "next to", "on", "under", "behind", "in front of", "near")
NUMBERS = ("two", "three", "some", "many")


class Lists(NamedTuple):
    common: Sequence[str]
    """What everyday pictures show"""
    known: Sequence[str]
    rare: Sequence[str]
    actions: Sequence[str]
    prompts: Sequence[Callable[[str], str]]


@cache
def lists() -> Lists:
    """The packages' lists, in their order."""
    from open_clip import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES
    from timm.data import ImageNetInfo
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
    from torchvision.models.video import R3D_18_Weights

    coco = [name for name in FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"] if name.islower()]
    nouns = [name.split(",")[0].strip() for name in ImageNetInfo("imagenet12k").label_descriptions()]
    actions = [name for name in R3D_18_Weights.DEFAULT.meta["categories"] if name.split()[0].endswith("ing")]
    return Lists(
        [name for name in coco if not name.startswith("__")], IMAGENET_CLASSNAMES, nouns, actions,
        OPENAI_IMAGENET_TEMPLATES,
    )  # fmt: skip


def one(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiouAEIOU' else 'a'} {noun}"


def several(noun: str) -> str:
    """English plurals, roughly; `dog` → `dogs`."""
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    return f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2:-1] not in "aeiou" else f"{noun}s"


def compose(draw: random.Random, words: Lists) -> str:
    """One sentence of a kind that people write: a thing, its look, its place, what is beside it, what somebody does."""
    noun = draw.choice(draw.choices((words.common, words.known, words.rare), (5, 4, 2))[0])
    look, place, who = draw.choice(LOOKS), draw.choice(PLACES), draw.choice(PEOPLE)
    match draw.choices(range(9), (1, 2, 2, 2, 1, 3, 2, 1, 1))[0]:
        case 0:
            return noun
        case 1:
            return draw.choice(words.prompts)(noun).rstrip(".")
        case 2:
            return f"{one(look)} {noun}"
        case 3:
            return f"{one(noun)} {place}"
        case 4:
            return f"{draw.choice(NUMBERS)} {several(noun)} {draw.choice(('', place))}".strip()
        case 5:
            return f"{who} {draw.choice(words.actions)} {draw.choice(('', place))}".strip()
        case 6:
            return f"{one(noun)} {draw.choice(JOINTS)} {one(draw.choice(words.common))}"
        case 7:
            return f"{who} in {one(look)} {draw.choice(CLOTHES)} {place}"
        case _:
            return f"{who} with {one(noun)} {draw.choice(('', place))}".strip()


class WordsDataset(TextSource):
    class Config(Config):
        count: int = Field(20_000, ge=1, le=1_000_000)
        """Number of different sentences."""
        seed: int = Field(0, ge=0)
        """Seed of their choice; independent of the training seed."""

    config: WordsDataset.Config

    @property
    def where(self) -> str:
        return "sentences composed from the word lists of open_clip, timm and torchvision"

    def sentences(self) -> Iterator[str]:
        draw, words, seen = random.Random(self.config.seed), lists(), set[str]()
        while len(seen) < self.config.count:
            text = compose(draw, words)
            if text not in seen:
                seen.add(text)
                yield text
