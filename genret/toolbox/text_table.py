"""A table of text, for the terminal and as Markdown."""

from __future__ import annotations

from typing import Any, NamedTuple


class TextTable(NamedTuple):
    title: str
    headings: list[str]
    rows: list[list[str]]
    words: int
    """How many of the first columns hold words; the others hold figures and are right-aligned"""
    notes: list[str] = []
    """Notes below the table, a line each"""

    def rich(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(self.title, style="italic"), title_justify="left", caption_justify="left")
        for place, heading in enumerate(self.headings):
            table.add_column(Text(heading), justify="left" if place < self.words else "right")
        for row in self.rows:
            table.add_row(*(Text(cell) for cell in row))
        if self.notes:
            table.caption = Text("\n".join(self.notes))
        return table

    def markdown(self) -> str:
        marks = ["---" if place < self.words else "---:" for place in range(len(self.headings))]
        lines = [_line(cells) for cells in (self.headings, marks, *self.rows)]
        notes = [f"\n{note}" for note in self.notes]
        return "\n".join([f"{self.title}\n", *lines, *notes]) + "\n"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
