"""Reads text files from outside: their encoding, JSON of bounded size, and the captions in a value.

The meaning of columns and keys is defined elsewhere.
"""

from __future__ import annotations

import ast
import codecs
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from genret.errors import GenretError
from genret.toolbox.splits import clean_captions

MAX_TEXT_BYTES = 2**20
"""Maximum size of a caption file, a line or a row."""
MAX_JSON_BYTES = 256 * 2**20
"""JSON is read as a whole; the largest published file, COCO's, has 145 MB."""
SAVE = "save it as UTF-8"
SET_ENCODING = "set dataset.encoding to what it is, such as cp1252, latin-1 or utf-16-le"

_STRING = r"""(?:'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")"""
_PYTHON_LIST = re.compile(rf"\[\s*{_STRING}(?:\s*,\s*{_STRING})*\s*,?\s*\]")


def open_text(file: Path, encoding: str | None = None) -> TextIO:
    """Opens a text file in `encoding`, otherwise by its byte order mark, otherwise as UTF-8."""
    if file.exists() and not file.is_file():  # opening a pipe might block
        raise GenretError(f"{file} is no ordinary file")
    if encoding is None:
        with file.open("rb") as stream:
            encoding = _encoding_of(stream.read(2))
    return file.open(encoding=encoding, newline="")


def decode_text(data: bytes, name: str, encoding: str | None = None, advice: str = SAVE) -> str:
    """The text of a small file or archive member; errors are `GenretError`s that call it `name`."""
    try:
        text = data.decode(encoding or _encoding_of(data))
    except UnicodeError as error:
        raise wrong_encoding(name, encoding, error, advice) from error
    check_start(text, name, advice)
    return text


def check_start(start: str, name: str | Path, advice: str = SAVE) -> None:
    """Rejects text that looks like UTF-16 without a byte order mark."""
    if "\0" in start[:4]:
        raise GenretError(f"{name} is no UTF-8 text: it looks like UTF-16 without its mark; {advice}")


def read_text(file: Path, encoding: str | None = None, advice: str = SAVE) -> str:
    """A small text file; one larger than `MAX_TEXT_BYTES` is rejected. `OSError` if it cannot be read."""
    if file.exists() and not file.is_file():
        raise GenretError(f"{file} is no ordinary file")
    with file.open("rb") as stream:
        data = stream.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise GenretError(f"{file} is larger than {MAX_TEXT_BYTES:,} bytes and so no file of captions")
    return decode_text(data, str(file), encoding, advice)


def wrong_encoding(name: str | Path, encoding: str | None, error: UnicodeError, advice: str = SAVE) -> GenretError:
    return GenretError(f"{name} is no {encoding or 'UTF-8'} text: {error}; {advice}")


def read_json(
    file: Path, encoding: str | None = None, object_hook: Callable[[dict[str, Any]], Any] | None = None
) -> Any:
    """A JSON file of at most `MAX_JSON_BYTES`."""
    try:
        if (size := file.stat().st_size) > MAX_JSON_BYTES:
            raise GenretError(
                f"{file} has {size:,} bytes, more than the {MAX_JSON_BYTES:,} allowed for JSON; "
                "write it as .jsonl, an object a line, for a data set of type folder"
            )
        with open_text(file, encoding) as stream:
            return json.load(stream, object_hook=object_hook)
    except OSError as error:
        raise GenretError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeError as error:
        raise wrong_encoding(file, encoding, error) from error
    except (ValueError, RecursionError) as error:
        raise GenretError(f"{file} is no JSON: {error}") from error


def captions_in(value: Any) -> tuple[str, ...] | None:
    """The captions of a text, of a list of texts, or of a text that is such a list; None for anything else.

    A null is no caption, as an empty text is.
    Tables cannot hold lists, so published ones write them as JSON (`["a", "b"]`) or as pandas does (`['a', "b"]`).
    """
    texts = _listed(value) if isinstance(value, str) else [] if value is None else value
    if not isinstance(texts, list):
        return None
    texts = [text for text in texts if text is not None]
    if not all(isinstance(text, str) for text in texts):
        return None
    return clean_captions(texts)


def _listed(text: str) -> list[str]:
    stripped = text.strip()
    if not (stripped.startswith("[") and stripped.endswith("]")):
        return [text]
    try:
        found = json.loads(stripped)
    except (ValueError, RecursionError):
        # string by string: Python's parser could fail on hostile nesting
        written = re.findall(_STRING, stripped) if _PYTHON_LIST.fullmatch(stripped) else None
        try:
            return [text] if written is None else [ast.literal_eval(string) for string in written]
        except (ValueError, SyntaxError):
            return [text]
    is_list = isinstance(found, list) and all(isinstance(caption, str) for caption in found)
    return found if is_list else [text]


def _encoding_of(start: bytes) -> str:
    return "utf-16" if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
