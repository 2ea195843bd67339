"""What a bundle may hold: names by an allow-list, and contents that are what their names say.

Nothing that is allowed can run code when it is read: safetensors, JSON, text, small pictures, SentencePiece models.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath

from safetensors import SafetensorError, safe_open

from genret.errors import GenretError
from genret.kit.files import read_json

MANIFEST = "genret.json"
CARD = "README.md"
PICTURE = "results.png"
STAGES = ("towers", "encoder", "identifier", "generator", "retriever")
KEPT = ("summary", "quality", "environment", "leakage", "confidence")
"""JSON files of a run directory that are shared as they are."""

MOST_FILES = 2_000_000
MOST_BYTES = 64 * 2**30
"""Bytes of all files of a bundle together."""
MOST_JSON = 2**30
MOST_TEXT = 64 * 2**20
"""Bytes of one text, picture or SentencePiece file."""

_NAME = r"\w[\w .+@=-]{0,150}"
_PLAIN = r"(?:safetensors|json|txt|model)"
ALLOWED = re.compile(
    rf"""
      recipe\.yaml | metrics\.jsonl | {CARD} | {PICTURE} | {MANIFEST} | (?:{"|".join(KEPT)})\.json
    | (?:{"|".join(STAGES)})/(?:{_NAME}/)?{_NAME}\.{_PLAIN}
    | weights/\d{{1,3}}/(?:{_NAME}/)?{_NAME}\.{_PLAIN}
    | evaluations/{_NAME}\.safetensors
    | catalog/\d{{6}}\.(?:json|safetensors)
    | thumbnails/[0-9a-f]{{2}}/[0-9a-f]{{64}}\.(?:jpg|webp)
    """,
    re.VERBOSE,
)
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".msgpack")
CODE = (".py", ".pyc", ".so", ".sh", ".jinja", ".dll", ".ipynb", ".js", ".html")

_PICKLED = re.compile(rb"\x80[\x02-\x05]")
_SIGNS = {
    ".jpg": re.compile(rb"\xff\xd8\xff"),
    ".webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
    ".png": re.compile(rb"\x89PNG\r\n\x1a\n"),
}


def check_name(name: str) -> None:
    """Raises an error that names the file, unless a bundle may hold a file of this path."""
    path = PurePosixPath(name)
    if "\\" in name or "\0" in name or path.is_absolute() or ".." in path.parts or str(path) != name:
        raise GenretError(f"{name!r} would be written outside of the run's folder; nothing was taken from this bundle")
    if path.suffix.lower() in PICKLES:
        raise GenretError(f"{name} may be a pickle, which can run code; bundles hold safetensors and JSON only")
    if path.suffix.lower() in CODE:
        raise GenretError(f"{name} may hold code; bundles hold safetensors and JSON only")
    if not ALLOWED.fullmatch(name):
        raise GenretError(f"{name} does not belong into a bundle of genret; take it out, or push the run anew")


def check_size(name: str, size: int) -> None:
    """Raises an error for a file that is larger than its kind can be."""
    most = {".safetensors": MOST_BYTES, ".json": MOST_JSON, ".jsonl": MOST_JSON}.get(Path(name).suffix, MOST_TEXT)
    if not 0 <= size <= most:
        raise GenretError(f"{name} has {size:,} bytes, more than the {most:,} that such a file may have")


def check_content(path: Path, name: str) -> None:
    """Raises an error unless the file is of the kind that its name says."""
    suffix = path.suffix
    try:
        if suffix == ".safetensors":
            with safe_open(path, framework="numpy") as file:
                file.keys()
        elif suffix == ".json":
            read_json(path, MOST_JSON)
        elif suffix == ".jsonl":
            with path.open(encoding="utf-8") as lines:
                for line in lines:
                    json.loads(line)
        else:
            with path.open("rb") as stream:
                beginning = stream.read(16)
            if _PICKLED.match(beginning) or beginning.startswith(b"PK\x03\x04"):
                raise ValueError("it is a pickle")
            if (sign := _SIGNS.get(suffix)) and not sign.match(beginning):
                raise ValueError("it is no such picture")
            if suffix in (".txt", ".yaml", ".md"):
                path.read_text(encoding="utf-8")
    except (SafetensorError, ValueError, RecursionError, OSError) as error:
        raise GenretError(f"{name} is not what its name says ({' '.join(str(error).split())[:120]})") from None
