"""Text of others, safe to show on a terminal and on a page."""

from __future__ import annotations

import pytest

from genret.kit.text import clean


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07name", "]0;titlename"),
        ("\x9b31mred", "31mred"),
        ("a\nb\tc\u2028d", "a b c d"),
        ("\u202egnp.exe", "gnp.exe"),
        ("left\u200eright\u061c", "leftright"),
        ("half \ud83d of an emoji", "half  of an emoji"),
        ("👩\u200d🚀 ❤\ufe0f 🏴\U000e0067\U000e0062", "👩\u200d🚀 ❤\ufe0f 🏴\U000e0067\U000e0062"),
        ("naïve café – ok", "naïve café – ok"),
        (17, "17"),
    ],
)
def test_clean(text: object, shown: str) -> None:
    assert clean(text) == shown


def test_lines_may_stay() -> None:
    assert clean("two\nlines\r\n\x1b[2J", keep_lines=True) == "two\nlines \n[2J"


def test_no_character_that_acts_is_left() -> None:
    """Of all that there are; a terminal's acts are the control characters, C0 and C1."""
    acting = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]
    assert set(clean("".join(acting))) <= {" "}
    assert clean("".join(chr(code) for code in range(0x20, 0x7F))) == "".join(map(chr, range(0x20, 0x7F)))
