"""What a search has found, as pictures: a contact sheet in a file, or thumbnails in the terminal.

textual-image asks the terminal and draws: by sixels, which iTerm2 takes, too, or by kitty's protocol.
"""

from __future__ import annotations

import io
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genret.api import SearchResult, Ui
from genret.errors import UsageError
from genret.kit.files import write_bytes
from genret.share.picture import CELL, GAP, SheetRow, contact_sheet
from genret.share.shown import sheet_rows

if TYPE_CHECKING:
    from genret.run import Run

MOST = 400
"""Pictures on a sheet: about 10 megapixels."""
MOST_SHOWN = 60
"""Pictures of a search in the terminal."""
INSTALL = "pip install 'genret[show]'"


class Gallery:
    """`add` each result, then `close`. Raises `UsageError` at once for what cannot be done with these options."""

    def __init__(self, run: Run, show: bool, sheet: Path | None, ui: Ui):
        self._run, self._ui, self._sheet = run, ui, sheet
        if sheet is not None and sheet.suffix.lower() != ".png":
            raise UsageError(f"--sheet {sheet}: name a file that ends in .png")
        if sheet is not None and not sheet.absolute().parent.is_dir():
            raise UsageError(f"--sheet {sheet}: there is no folder {sheet.absolute().parent}")
        self._terminal = _Terminal.found(ui) if show else None
        self._rows = list[SheetRow]()
        self._left = MOST

    def add(self, result: SearchResult) -> None:
        if self._sheet is not None and self._left:
            rows = sheet_rows(self._run, [result._replace(hits=result.hits[: self._left])])
            self._rows += rows
            self._left -= sum(len(row.cells) for row in rows)
        if self._terminal is not None:
            for row in sheet_rows(self._run, [result._replace(hits=result.hits[:MOST_SHOWN])]):
                self._terminal.draw(row)

    def close(self) -> None:
        """Writes the sheet."""
        if self._sheet is not None:
            data = io.BytesIO()
            contact_sheet(self._rows).save(data, "PNG")
            write_bytes(self._sheet, data.getvalue())
            more = f", the first {MOST}" if not self._left else ""
            self._ui.note(f"{self._sheet}: {sum(len(row.cells) for row in self._rows)} pictures{more}")


class _Terminal:
    """One that draws pictures."""

    def __init__(self, kind: Any, columns: int):
        self._kind, self._columns = kind, columns

    @classmethod
    def found(cls, ui: Ui) -> _Terminal | None:
        """The terminal of standard output; None, with a note, where it draws no pictures."""
        if find_spec("textual_image") is None:
            raise UsageError(f"--show needs the package 'textual-image': {INSTALL}; --sheet FILE needs nothing")
        instead = "--sheet FILE.png writes the pictures into a file"
        real = [stream is not None and stream.isatty() for stream in (sys.__stdout__, sys.__stdin__)]
        if not all(real):
            ui.note(f"Note: --show draws in a terminal, and this is none; {instead}.")
            return None
        from rich.console import Console
        from textual_image import renderable  # asks the terminal
        from textual_image._terminal import get_cell_size

        if renderable.Image not in (renderable.SixelImage, renderable.TGPImage):
            ui.note(f"Note: this terminal draws no pictures (kitty, iTerm2, and those with sixel do); {instead}.")
            return None
        pixels = Console(file=sys.__stdout__).width * get_cell_size().width
        return cls(renderable.Image, max(1, (pixels - GAP) // (CELL + GAP)))

    def draw(self, row: SheetRow) -> None:
        """A line of pictures at a time, so that none is taller than the window."""
        from rich.console import Console

        # kitty's protocol says by the letters' colour which picture they stand for
        console = Console(file=sys.__stdout__, force_terminal=True, color_system="truecolor", no_color=False)
        for at in range(0, len(row.cells), self._columns):
            part = SheetRow("", row.cells[at : at + self._columns])
            console.print(self._kind(contact_sheet([part], self._columns)), end="")
