"""Makes untrusted text (from files, datasets, recipes) safe to show on a terminal and on a page."""

from __future__ import annotations

import unicodedata

_TURNS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that change the writing direction, so that text reads differently from what it is."""
_BREAKS = "\n\r\t\v\f\x85\u2028\u2029"


def clean(text: object, keep_lines: bool = False) -> str:
    """On one line, without characters that move the cursor, mislead the reader or break a page: control characters (so
    no escape sequence works), direction marks, lone surrogates. Joined emoji stay as they are.

    `keep_lines`: line breaks stay, for our own texts that quote others. Pages must escape HTML afterwards.
    """
    said = str(text)
    if said.isascii() and said.isprintable():
        return said
    return "".join(_shown(one, keep_lines) for one in said)


def _shown(character: str, keep_lines: bool) -> str:
    if character == "\n" and keep_lines:
        return character
    if character in _BREAKS:
        return " "
    return "" if character in _TURNS or unicodedata.category(character) in ("Cc", "Cs") else character
