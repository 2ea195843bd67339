"""When two captions are the same words: whatever their case, spacing and punctuation."""

from __future__ import annotations

import unicodedata

_SENTENCE = frozenset(".,;:!?…\"'`")
_BRACKETS_AND_DASHES = ("Pd", "Ps", "Pe", "Pi", "Pf")


def wording(caption: str) -> str:
    """Equal for captions of the same words: "A dog, running ." and "a dog running"; "keycap #" is not "keycap *"."""
    folded = unicodedata.normalize("NFKC", caption).casefold()
    letters = "".join(letter for letter in folded if not _between_words(letter))
    return letters or "".join(folded.split())


def _between_words(letter: str) -> bool:
    return letter.isspace() or letter in _SENTENCE or unicodedata.category(letter) in _BRACKETS_AND_DASHES
