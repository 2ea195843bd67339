"""Pictures of results, drawn by Pillow: a contact sheet of searches, and bars of recalls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont, ImageOps

from genret.kit.text import clean

CELL, GAP, LINE = 128, 8, 18
INK, PAPER, SHADE = "#1b1f24", "#ffffff", "#eef1f4"
COLOURS = ("#2f6fde", "#9aa7b4", "#d98e2b", "#4c9a6a")


class SheetRow(NamedTuple):
    """One search: its query, and the pictures found with lines of text below each; None: no picture at hand."""

    title: str
    cells: Sequence[tuple[Image.Image | None, str]]


def contact_sheet(rows: Sequence[SheetRow], columns: int = 8, cell: int = CELL) -> Image.Image:
    """Searches below one another, at most `columns` pictures side by side, each `cell` pixels wide."""
    font, small = ImageFont.load_default(15), ImageFont.load_default(11)
    columns = max(1, min(columns, max((len(row.cells) for row in rows), default=1)))
    text = LINE * max((words.count("\n") + 1 for row in rows for _, words in row.cells), default=1)
    lines = [[row.cells[at : at + columns] for at in range(0, len(row.cells), columns)] or [[]] for row in rows]
    width = GAP + columns * (cell + GAP)
    titles = [LINE + GAP if row.title else 0 for row in rows]
    height = GAP + sum(titles) + sum(len(parts) * (cell + text + GAP) for parts in lines)
    sheet = Image.new("RGB", (width, height), PAPER)
    pen, top = ImageDraw.Draw(sheet), GAP
    for row, title, parts in zip(rows, titles, lines, strict=True):
        pen.text((GAP, top), _cut(row.title, width - 2 * GAP, font), INK, font)
        top += title
        for part in parts:
            for column, (picture, words) in enumerate(part):
                left = GAP + column * (cell + GAP)
                pen.rectangle((left, top, left + cell - 1, top + cell - 1), SHADE)
                if picture is not None:
                    fitted = ImageOps.contain(picture.convert("RGB"), (cell, cell))
                    sheet.paste(fitted, (left + (cell - fitted.width) // 2, top + (cell - fitted.height) // 2))
                for number, line in enumerate(words.split("\n")):
                    pen.text((left, top + cell + 2 + number * LINE), _cut(line, cell, small), INK, small)
            top += cell + text + GAP
    return sheet


def recall_bars(figures: Mapping[str, Mapping[str, float | None]], width: int = 720) -> Image.Image:
    """Bars of recall@k in percent, by way of searching and by k; what was not measured has none."""
    font, small = ImageFont.load_default(15), ImageFont.load_default(12)
    cutoffs = list(dict.fromkeys(k for recalls in figures.values() for k in recalls))
    bar, left, right = 20, 70, 60
    height = GAP + LINE * len(figures) + GAP + len(cutoffs) * (bar * len(figures) + 2 * GAP) + GAP
    picture = Image.new("RGB", (width, height), PAPER)
    pen, top = ImageDraw.Draw(picture), GAP
    for number, name in enumerate(figures):
        pen.rectangle((left, top + 3, left + 11, top + 14), COLOURS[number % len(COLOURS)])
        pen.text((left + 18, top), name, INK, font)
        top += LINE
    for k in cutoffs:
        top += GAP
        pen.text((GAP, top + 2), f"R@{k}", INK, font)
        for number, recalls in enumerate(figures.values()):
            if (value := recalls.get(k)) is not None:
                end = left + (width - left - right) * value / 100
                pen.rectangle((left, top + 2, max(left + 1, end), top + bar - 3), COLOURS[number % len(COLOURS)])
                pen.text((end + 6, top + 2), f"{value:.1f} %", INK, small)
            top += bar
        top += GAP
    return picture


def _cut(text: str, width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """One line that is no wider than `width` pixels; letters that the font lacks are left out."""
    text = "".join(letter for letter in clean(text) if ord(letter) < 0x2190).strip()
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
