"""Emoji as text: their names in several languages, and which of them show the same concept.

A key is an emoji without the variation selector U+FE0F, which sources use inconsistently.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

import emoji

Language = Literal["en", "es", "ja", "ko", "pt", "it", "fr", "de", "fa", "id", "zh", "ru", "tr", "ar"]

_JOINER = "\u200d"
_SKIN_TONES = "".join(map(chr, range(0x1F3FB, 0x1F400)))
_FULLY_QUALIFIED = emoji.STATUS["fully_qualified"]
_UNGENDERED = str.maketrans(
    {
        **dict.fromkeys("👨👩", "🧑"),
        **dict.fromkeys("👦👧", "🧒"),
        **dict.fromkeys("👴👵", "🧓"),
        **dict.fromkeys("🤴👸", "🫅"),
        **dict.fromkeys("👬👭👫", "👫"),
        **dict.fromkeys("🕺💃", "💃"),
        **dict.fromkeys("🫃🫄", "🤰"),
        "🤶": "🎅",
    }
)
_WRITTEN_OUT = {
    **{"🧑‍❤‍💋‍🧑": "💏", "🧑‍❤‍🧑": "💑", "🧑‍🤝‍🧑": "👫", "🫱‍🫲": "🤝"},
    **{"🧑‍🐰‍🧑": "👯", "🧑‍🫯‍🧑": "🤼", "🧑‍🎄": "🎅"},
}
"""Sequences of persons, with the single emoji of the same group."""
_GENDER_OR_DIRECTION = re.compile(f"{_JOINER}[♀♂➡]")


class Concept(NamedTuple):
    key: str
    emoji: str
    """Display form, with variation selectors."""
    names: tuple[str, ...]
    """One per language, without duplicates."""
    aliases: tuple[str, ...]
    """Further English names, from chat programs."""

    @property
    def codes(self) -> str:
        """`1F44D-1F3FD`: part of the image ids."""
        return "-".join(f"{ord(character):04X}" for character in self.key)


def key_of(text: str) -> str:
    return text.replace("\ufe0f", "")


@lru_cache(maxsize=8)
def concepts(languages: tuple[Language, ...] = ("en",)) -> dict[str, Concept]:
    """All emoji that have a name, by key, sorted."""
    for language in languages:
        emoji.config.load_language(language)
    shown: dict[str, str] = {}
    for text, data in emoji.EMOJI_DATA.items():
        if key_of(text) not in shown or data["status"] == _FULLY_QUALIFIED:
            shown[key_of(text)] = text
    found = {}
    for key, text in sorted(shown.items()):
        data = emoji.EMOJI_DATA[text]
        names = dict.fromkeys(_clean(data[language], key, language) for language in languages if language in data)
        if names:
            aliases = dict.fromkeys(_clean(alias, key, "") for alias in data.get("alias", ()))
            found[key] = Concept(key, text, tuple(names), tuple(alias for alias in aliases if alias not in names))
    return found


def base_of(key: str) -> str:
    """An emoji without skin tone, gender and direction; the same for all variants of a concept."""
    base = "".join(character for character in key if character not in _SKIN_TONES) or "🏻"
    base = _GENDER_OR_DIRECTION.sub("", base).translate(_UNGENDERED)
    people = set(base) <= {"🧑", "🧒", _JOINER}
    if people and _JOINER in base:
        return "👪"  # families of every composition
    return _WRITTEN_OUT.get(base, base)


def _clean(name: str, key: str, language: str) -> str:
    """`:dog_face:` → `dog face`; English names of countries become "flag of …"."""
    text = " ".join(name.strip(":").replace("_", " ").split())
    return f"flag of {text}" if language == "en" and _is_flag(key) else text


def _is_flag(key: str) -> bool:
    """Flags of countries and of their parts."""
    regional = len(key) == 2 and all(0x1F1E6 <= ord(character) <= 0x1F1FF for character in key)
    return regional or (key[0] == "🏴" and key[-1] == "\U000e007f")
