"""What a search shows as pictures: the sheet in a file, and escape sequences parsed back into the picture."""

from __future__ import annotations

import array
import base64
import fcntl
import io
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import genret
from genret.share.picture import CELL, GAP, LINE, SheetRow, contact_sheet
from genret.share.shown import sheet_rows, thumbnails_of

QUERY = "a red square on grey"
COLUMNS, CELL_WIDTH, CELL_HEIGHT = 42, 10, 20
"""A narrow window: three pictures side by side."""


@pytest.fixture
def opened(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    for variable, value in (("HOME", tiny.home), ("DEVICE", "cpu"), ("NUM_THREADS", 1)):
        monkeypatch.setenv(f"GENRET_{variable}", str(value))
    with genret.load("tiny-1") as run:
        yield run


def test_the_sheet_shows_what_is_found(tiny: Any, opened: Any, tmp_path: Path) -> None:
    file = tmp_path / "found.png"
    hits = tiny.genret("search", QUERY, "-k", 5, "--sheet", file, "--json").document["hits"]
    sheet = np.asarray(Image.open(file).convert("RGB")).astype(int)
    assert sheet.shape[1] == GAP + 5 * (CELL + GAP)
    result = opened.search(QUERY, k=5)
    assert [hit.image_id for hit in result.hits] == [hit["image_id"] for hit in hits]
    (row,) = sheet_rows(opened, [result])
    assert row.title == QUERY
    for place, ((hit, picture), (_, words)) in enumerate(
        zip(thumbnails_of(opened, result.hits), row.cells, strict=True)
    ):
        left = GAP + place * (CELL + GAP)
        shown = np.asarray(picture.convert("RGB").resize((CELL, CELL), Image.Resampling.BICUBIC)).astype(int)
        top = sheet.shape[0] - GAP - 2 * LINE - CELL
        cell = sheet[top : top + CELL, left : left + CELL]
        assert np.abs(cell - shown).mean() < 12, f"picture {place}"
        assert f"{hit.rank}.  {hit.score:.3f}" in words and len(words.split("\n")) == 2


def test_several_queries_are_below_one_another_and_bounded(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genret.share.gallery.MOST", 5)
    file = tmp_path / "found.png"
    done = tiny.genret("search", "--queries", "-", "-k", 3, "--sheet", file, stdin=f"{QUERY}\na blue line\nlast\n")
    assert len(done.out.splitlines()) == 3 and "5 pictures, the first 5" in done.err
    assert Image.open(file).size == contact_sheet([SheetRow("q", [(None, "1\n2")] * n) for n in (3, 2)]).size


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sheet", "found.jpg"], "ends in .png"),
        (["--sheet", "no/where/found.png"], "there is no folder"),
        (["--show", "--json"], "--sheet FILE"),
    ],
)
def test_what_cannot_be_shown(tiny: Any, failed: Callable[..., None], words: list[str], said: str) -> None:
    failed(tiny.genret("search", QUERY, *words), 2, said)


def test_without_the_package_or_a_terminal(
    tiny: Any, failed: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genret.share.gallery.find_spec", lambda name: None)
    failed(tiny.genret("search", QUERY, "--show"), 2, "pip install 'genret[show]'")
    monkeypatch.setattr("genret.share.gallery.find_spec", lambda name: name)
    done = tiny.genret("search", QUERY, "--show")
    assert done.code == 0 and "this is none; --sheet FILE.png" in done.err and len(done.out.splitlines()) == 8


# ------------------------------------------------------------------------------------------------ terminals
def in_terminal(tiny: Any, answers: bytes) -> str:
    """All that `genret search --show` writes into a terminal that has given these answers to what it is asked."""
    pytest.importorskip("textual_image", reason="needs the extra 'show'")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, array.array("H", [50, COLUMNS, COLUMNS * CELL_WIDTH, 50 * CELL_HEIGHT]))
    settings = termios.tcgetattr(theirs)
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(theirs, termios.TCSANOW, settings)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GENRET_")}
    environment |= {"GENRET_HOME": str(tiny.home), "GENRET_PLUGINS": "", "GENRET_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    environment |= {"TERM": "xterm-256color"}
    command = [sys.executable, "-m", "genret", "search", QUERY, "-k", "3", "--show"]
    os.write(ours, answers)
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=environment) as run:
        os.close(theirs)
        said = b""
        try:
            while data := os.read(ours, 65536):
                said += data
        except OSError:  # the terminal is closed
            pass
        assert run.stderr is not None
        assert run.wait() == 0, run.stderr.read()
    os.close(ours)
    return said.decode()


def expected(run: Any, size: tuple[int, int]) -> Any:
    (row,) = sheet_rows(run, [run.search(QUERY, k=3)])
    sheet = contact_sheet([SheetRow("", row.cells)], 3)
    assert abs(sheet.width - size[0]) <= CELL_WIDTH and abs(sheet.height - size[1]) <= CELL_HEIGHT
    return np.asarray(sheet.resize(size)).astype(int)


def unsixel(data: str) -> Any:
    """(H, W, 3) of a sixel picture: bands of six rows, a colour at a time."""
    width, height = map(int, re.match(r'"\d+;\d+;(\d+);(\d+)', data).groups())  # type: ignore[union-attr]
    picture, colours = np.full((height + 6, width, 3), 255), dict[int, tuple[int, ...]]()
    x = y = colour = 0
    pieces = r'"[\d;]+|#(\d+)(?:;2;(\d+);(\d+);(\d+))?|!(\d+)([?-~])|([?-~])|([$-])'
    for number, *rgb, repeat, again, once, end in re.findall(pieces, data):
        if number:
            colour = int(number)
            if rgb[0]:
                colours[colour] = tuple(round(int(part) * 2.55) for part in rgb)
        elif end:
            x, y = 0, y + 6 * (end == "-")
        elif again or once:
            count, bits = int(repeat or 1), ord(again or once) - 63
            for row in range(6):
                if bits >> row & 1:
                    picture[y + row, x : x + count] = colours[colour]
            x += count
    return picture[:height]


def test_sixels_are_the_picture(tiny: Any, opened: Any) -> None:
    """The answer of a terminal with sixels, such as iTerm2, to being asked for its attributes."""
    said = in_terminal(tiny, b"\x1b[?62;4;22c")
    (data,) = re.findall(r"\x1bP[\d;]*q(.*?)\x1b\\", said, re.DOTALL)
    picture = unsixel(data)
    assert np.abs(picture - expected(opened, picture.shape[1::-1])).mean() < 8


def test_kittys_graphics_are_the_picture(tiny: Any, opened: Any) -> None:
    """The answers of kitty: no sixels, but its own protocol."""
    said = in_terminal(tiny, b"\x1b[?62;22c\x1b_Gi=1;OK\x1b\\")
    chunks = re.findall(r"\x1b_G[^;\x1b]*f=100[^;\x1b]*;([^\x1b]+)\x1b\\", said)
    picture = Image.open(io.BytesIO(base64.b64decode("".join(chunks)))).convert("RGB")
    assert np.abs(np.asarray(picture).astype(int) - expected(opened, picture.size)).mean() < 2
    assert said.count("\U0010eeee") > 100, "letters where the picture stands"
