"""From a model name to a local folder: a path is used as it is, any other name is looked up on the model hub.

All later code reads folders, so a missing model fails only here, and a local folder never uses the network. Only
safetensors are downloaded: no pickles, no code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from genret.errors import GenretError
from genret.kit import files

PATTERNS = ("*.json", "*.txt", "*.model", "*.safetensors")
"""The files that a model needs besides code: settings, vocabularies, weights."""
MOST_JSON = 64_000_000


def model_folder(name: str, revision: str | None = None, patterns: Sequence[str] = PATTERNS) -> Path:
    """The local folder of a model: `name` itself if it is one, else the hub's snapshot, downloaded if necessary."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise GenretError(f"'{name}' is a file, but a model is a folder with its settings and safetensors weights")
    if path.is_absolute() or name.startswith((".", "~")):
        raise GenretError(f"there is no model folder {name}")
    try:
        return _snapshot(name, revision, tuple(patterns))
    except (OSError, ValueError) as error:  # errors of the hub and of its connection are OSErrors
        raise GenretError(
            f"the model '{name}' is no local folder, and the model hub does not give it ({_reason(error)}); "
            "give a local folder with safetensors weights, or go online if the name is right"
        ) from error


@lru_cache(maxsize=64)
def _snapshot(name: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    """Calls the hub once per process. Skips files below the second level: these are exports for other programs."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*/*"]))


def weights_file(folder: Path, preferred: Iterable[str] = ("model.safetensors",)) -> Path:
    """The safetensors file of a folder that has one."""
    for name in preferred:
        if (folder / name).is_file():
            return folder / name
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise GenretError(
            f"{folder} has no weights in safetensors format; genret reads no pickles (.bin, .pt): convert them first"
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:4])
        raise GenretError(f"{folder} has several weights files ({names}) and none is called model.safetensors")
    return found[0]


def has_weights(folder: Path) -> None:
    """Raises an error for a folder without safetensors; several shards are fine."""
    if not any(folder.glob("*.safetensors")):
        weights_file(folder)


def check_loaded(model: Any, report: Mapping[str, Any], folder: Path, may_miss: Sequence[str] = ()) -> None:
    """Raises an error for a transformers model whose weights are missing, misshapen or not finite, by file and tensor.
    A model that genret itself has saved has no others either.

    `report`: the result of `from_pretrained(..., output_loading_info=True)`. `may_miss`: prefixes of unused tensors.
    """
    missing = [key for key in report["missing_keys"] if not key.startswith(tuple(may_miss))]
    missing += [entry[0] if isinstance(entry, tuple) else entry for entry in report.get("mismatched_keys", ())]
    if missing:
        raise GenretError(f"{folder} lacks the weights of {len(missing)} layers, {min(missing)} for one")
    own = (folder / "genret.json").is_file()
    if own and (surplus := set(report.get("unexpected_keys", ())) - {"lm_head.weight"}):  # of an untied head
        raise GenretError(f"{folder} holds {len(surplus)} weights that its model has not, {min(surplus)} for one")
    check_finite(folder, model.named_parameters())


def check_finite(folder: Path, tensors: Iterable[tuple[str, Any]]) -> None:
    """Raises an error for weights that are not finite: their outputs would rank images at random."""
    for name, tensor in tensors:
        if tensor.numel() and tensor.is_floating_point() and not all(end.isfinite() for end in tensor.aminmax()):
            raise GenretError(f"{folder} is damaged: its tensor {name} holds values that are not finite")


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Turns the libraries' errors about unusable models into one sentence that names the model."""
    try:
        yield
    except GenretError:
        raise
    except (
        SafetensorError,
        OSError,
        ValueError,
        RuntimeError,
        KeyError,
        TypeError,
        AttributeError,
        ImportError,
    ) as error:
        raise GenretError(f"cannot load {what}: {_reason(error)}") from error


def read_json(path: Path) -> Any:
    """The JSON document in `path`, or None where there is no such file."""
    if not path.is_file():
        return None
    try:
        return files.read_json(path, MOST_JSON)
    except (OSError, ValueError) as error:
        raise GenretError(f"{path} cannot be read as JSON: {_reason(error)}") from error


def fingerprint(path: Path) -> str:
    """A hash of the contents of a model folder (or one file), independent of its location."""
    files = [path] if path.is_file() else sorted({file for pattern in PATTERNS for file in path.rglob(pattern)})
    digest = hashlib.sha256()
    for file in files:
        relative = "" if file == path else file.relative_to(path).as_posix()
        status = file.stat()
        digest.update(f"{relative}\0{_file_hash(file, status.st_size, status.st_mtime_ns)}\0".encode())
    return digest.hexdigest()[:20]


@lru_cache(maxsize=256)
def _file_hash(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200].rstrip(".") if lines else type(error).__name__


def reads(tokenizer: Any, text: str) -> bool:
    """Whether a Hugging Face tokenizer knows more letters of the text than it misses; emoji and many scripts are
    unknown to some, or known by single letters alone (of 红心 the usual English ones know 心)."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = list(zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True))
    missed = sum(one in tokenizer.all_special_ids for one, _ in pieces)
    known = sum(len(_letters(piece)) for one, piece in pieces if one not in tokenizer.all_special_ids)
    return known > missed


def _letters(piece: str) -> str:
    """Without the marks of pieces that begin or continue a word."""
    return piece.removeprefix("##").strip("\u2581\u0120 ")
