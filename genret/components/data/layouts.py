"""Published tables of captions, read row by row: one reader per layout, with bounded memory.

Rows are dictionaries by column. The meaning of columns is used only to detect the delimiter.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

from genret.components.data.text import MAX_TEXT_BYTES, SET_ENCODING, check_start, open_text, read_json, wrong_encoding
from genret.errors import GenretError, one_line
from genret.kit.images import is_image_name

Format = Literal["auto", "csv", "jsonl", "json", "token"]
SUFFIXES = {
    **dict.fromkeys((".csv", ".tsv", ".txt", ".token"), "csv"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    ".json": "json",
}
DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}

_TOKEN = re.compile(r"(?P<image>[^\t]*[^\t\s])#\d+\t(?P<caption>.*)", re.DOTALL)
FLICKR30K = ["image_name", "comment_number", "comment"]
_FLICKR30K_BROKEN = re.compile(r"\s*(\d+)\s+(\S.*)", re.DOTALL)
"""Row 20,001 of the published results.csv lacks its second bar: `2199200615.jpg| 4   A dog runs across the grass .`"""


class TableRow(NamedTuple):
    place: str
    """Position in the file, for messages: `line 3`"""
    values: dict[str, Any]


class Layout(NamedTuple):
    name: str
    """The detected layout: `a table with commas`"""
    usual: bool
    """The layout matches the suffix, so it is not reported"""
    rows: Iterator[TableRow]
    remarks: list[str]
    """Skipped or repaired rows; complete after the last row"""


@contextmanager
def opened(
    file: Path,
    format: Format,
    delimiter: str | None,
    encoding: str | None,
    fits: Callable[[Mapping[str, Any]], bool],
) -> Iterator[Layout]:
    """The rows of a table, within a `with` block. `fits`: whether these are the columns of a caption table."""
    kind = SUFFIXES.get(file.suffix.lower()) if format == "auto" else format
    if kind is None:
        raise GenretError(
            f"{file} is no .csv, .tsv or .jsonl file, and no .txt, .token or .json; set dataset.format to what it is"
        )
    try:
        with open_text(file, encoding) as stream:
            check_start(stream.read(4), file, SET_ENCODING)
            stream.seek(0)
            if format == "auto":
                kind = _kind_of(kind, stream)
                stream.seek(0)
            lines = _Lines(file, stream)
            if kind == "json":
                yield _whole_json(file, encoding)
            elif kind == "jsonl":
                yield Layout("JSON lines", file.suffix.lower() == ".jsonl", _json_lines(lines), [])
            elif kind == "token":
                remarks: list[str] = []
                yield Layout("lines 'image#number, tab, caption'", False, _token_lines(lines, remarks), remarks)
            else:
                yield _delimited(lines, delimiter, fits)
    except OSError as error:
        raise GenretError(f"the caption file {file} cannot be read: {error.strerror}") from error
    except UnicodeError as error:
        raise wrong_encoding(file, encoding, error, SET_ENCODING) from error


def _kind_of(kind: str, stream: TextIO) -> str:
    """Detects the layout of a text file by its first lines."""
    if kind == "jsonl":
        return kind
    first, second = stream.readline(MAX_TEXT_BYTES), stream.readline(100)
    if kind == "csv":
        start = first.lstrip()[:1]
        return "jsonl" if start == "{" else "json" if start == "[" else "token" if _TOKEN.match(first) else "csv"
    try:  # a .json file may have one object per line
        return "jsonl" if second.strip() and isinstance(json.loads(first), dict) else "json"
    except (ValueError, RecursionError):
        return "json"


class _Lines:
    """Numbered lines; a quoted row may span many lines, up to `MAX_TEXT_BYTES`."""

    def __init__(self, file: Path, stream: TextIO):
        self.file, self._stream = file, stream
        self.number = 0
        self._first = 1
        self._size = 0

    def begin_row(self) -> None:
        self._first, self._size = self.number + 1, 0

    @property
    def place(self) -> str:
        """The row's lines, for messages."""
        last = max(self.number, self._first)
        return f"line {last}" if last == self._first else f"lines {self._first} to {last}"

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        text = self._stream.readline(MAX_TEXT_BYTES)
        if not text:
            raise StopIteration
        self.number += 1
        self._size += len(text)
        if self._size >= MAX_TEXT_BYTES:
            raise GenretError(f"{self.file} {self.place} is longer than {MAX_TEXT_BYTES:,} characters")
        return text


def _json_lines(lines: _Lines) -> Iterator[TableRow]:
    for text in lines:
        place = f"line {lines.number}"
        if text.strip():
            try:
                values = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise GenretError(f"{lines.file} {place} is no JSON: {error}") from error
            if not isinstance(values, dict):
                raise GenretError(f"{lines.file} {place} is no JSON object")
            yield TableRow(place, values)
        lines.begin_row()


def _token_lines(lines: _Lines, remarks: list[str]) -> Iterator[TableRow]:
    """The format of Flickr8k.token.txt. Its name `….jpg.1` belongs to no existing file."""
    nameless = 0
    for text in lines:
        if text.strip():
            found = _TOKEN.match(text)
            if found is None:
                raise GenretError(f"{lines.file} line {lines.number} is not 'image#number, tab, caption'")
            if is_image_name(found["image"]):
                yield TableRow(f"line {lines.number}", {"image": found["image"], "caption": found["caption"]})
            else:
                nameless += 1
        lines.begin_row()
    if nameless:
        remarks.append(f"captions passed over, of names without an image's suffix: {nameless:,}")


def _delimited(lines: _Lines, delimiter: str | None, fits: Callable[[Mapping[str, Any]], bool]) -> Layout:
    first = next((line for line in lines if line.strip(" \t\r\n,;|")), "")
    if told := re.fullmatch(r"sep=([,;\t|])\s*", first):  # Excel's delimiter line
        delimiter, first = delimiter or told[1], next(lines, "")
    usual = "\t" if lines.file.suffix.lower() == ".tsv" else ","
    delimiter = delimiter or _sniffed(first, usual, fits)
    remarks: list[str] = []
    name = f"a table with {DELIMITERS.get(delimiter, repr(delimiter))}"
    as_promised = delimiter == usual and lines.file.suffix.lower() in (".csv", ".tsv")
    return Layout(name, as_promised, _cells(lines, first, delimiter, remarks), remarks)


def _sniffed(header: str, usual: str, fits: Callable[[Mapping[str, Any]], bool]) -> str:
    """The delimiter under which the header names the columns sought.

    Counting commas, as `csv.Sniffer` does, would fail: captions contain many.
    """
    tried = [usual, *(other for other in DELIMITERS if other != usual)]
    try:
        heads = {each: _header(next(csv.reader([header], delimiter=each), [])) for each in tried}
    except csv.Error:  # reported when the rows are read
        return usual
    fitting = [each for each in tried if fits(dict.fromkeys(heads[each]))]
    return fitting[0] if fitting else max(tried, key=lambda each: len(heads[each]))


def _header(cells: list[str]) -> list[str]:
    return [cell.strip() for cell in cells]


def _cells(lines: _Lines, first: str, delimiter: str, remarks: list[str]) -> Iterator[TableRow]:
    rows = csv.reader(chain([first] if first else [], lines), delimiter=delimiter, strict=True)
    head: list[str] | None = None
    padded = False
    mended = 0
    try:
        for cells in rows:
            if not any(cell.strip() for cell in cells):
                pass  # a blank line, or Excel's rows of separators
            elif head is None:
                head, padded = _header(cells), cells != _header(cells)
                if twice := [name for name, count in Counter(head).items() if name and count > 1]:
                    raise GenretError(
                        f"{lines.file} {lines.place}: two columns are called {one_line(repr(twice[0]))}; "
                        "give each a name of its own (an image may have several rows, a caption each)"
                    )
            else:
                if len(cells) != len(head):
                    cells, mended = _mended(head, cells), mended + 1
                if len(cells) != len(head):
                    raise GenretError(f"{lines.file} {lines.place}: not as many columns as the first line")
                # a column without a name is empty or pandas' index
                values = {
                    name: cell.strip() if padded else cell for name, cell in zip(head, cells, strict=True) if name
                }
                if head == FLICKR30K:
                    del values["comment_number"]
                yield TableRow(lines.place, values)
            lines.begin_row()
    except csv.Error as error:
        raise GenretError(f"{lines.file} {lines.place}: {error}") from error
    if mended:
        remarks.append(f"broken rows mended: {mended:,}")


def _mended(head: list[str], cells: list[str]) -> list[str]:
    if head == FLICKR30K and len(cells) == 2 and (found := _FLICKR30K_BROKEN.fullmatch(cells[1])):
        return [cells[0], found[1], found[2]]
    return cells


def _whole_json(file: Path, encoding: str | None) -> Layout:
    value = read_json(file, encoding)
    if isinstance(value, list):
        return Layout("a JSON array", False, _entries(file, value), [])
    images = value.get("images") if isinstance(value, dict) else None
    if isinstance(images, list) and isinstance(value.get("annotations"), list):
        return Layout("COCO's JSON of images and annotations", False, _coco(file, images, value["annotations"]), [])
    if isinstance(images, list):
        raise GenretError(f"{file} looks like Karpathy's JSON; read it with dataset.type: karpathy")
    raise GenretError(f'{file} is no array of objects and has not COCO\'s "images" and "annotations"')


def _entries(file: Path, values: list[Any]) -> Iterator[TableRow]:
    for number, entry in enumerate(values, 1):
        if not isinstance(entry, dict):
            raise GenretError(f"{file} entry {number} is no JSON object")
        yield TableRow(f"entry {number}", entry)


def _coco(file: Path, images: list[Any], annotations: list[Any]) -> Iterator[TableRow]:
    captions: dict[Any, list[str]] = {}
    for number, image in enumerate(images, 1):
        if not isinstance(image, dict) or not isinstance(image.get("id"), int | str):
            raise GenretError(f'{file}: image {number} has no "id"')
        captions[image["id"]] = []
    for number, annotation in enumerate(annotations, 1):
        caption = annotation.get("caption") if isinstance(annotation, dict) else None
        owner = annotation.get("image_id") if isinstance(annotation, dict) else None
        if not isinstance(caption, str) or not isinstance(owner, int | str) or owner not in captions:
            raise GenretError(
                f'{file}: annotation {number} has no "caption", or its "image_id" is that of no image; '
                "take the captions_*.json of COCO's annotations"
            )
        captions[owner].append(caption)
    for number, image in enumerate(images, 1):
        yield TableRow(f"image {number}", {**image, "caption": captions[image["id"]]})
