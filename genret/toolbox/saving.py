"""Files of a fitted part: named tensors (safetensors) and plain facts (JSON). No pickles.

Independent of the tensors' meaning. Missing, incomplete or foreign files raise one sentence that says what to do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from genret.errors import GenretError, one_line
from genret.kit.files import read_json
from genret.toolbox.weights import check_finite


class Stored(NamedTuple):
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def save(folder: Path, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Writes `name.safetensors`, if there are tensors, and `name.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    # clones: safetensors does not accept tensors that share storage
    plain = {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()}
    if plain:
        save_file(plain, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps(facts), encoding="utf-8")


def load(folder: Path, name: str) -> Stored:
    """What `save` wrote, on the CPU; read and use it within `reading`."""
    facts = read_json(folder / f"{name}.json")
    tensors = folder / f"{name}.safetensors"
    found = load_file(tensors) if tensors.exists() else {}
    check_finite(tensors, found.items())
    return Stored(found, facts)


@contextmanager
def reading(folder: Path, what: str) -> Iterator[None]:
    """Turns all errors that damaged files raise, while they are read or used, into one `GenretError`."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise GenretError(
            f"{folder} holds no usable {what} ({one_line(error)}); make it anew with: genret train --run DIR --resume"
        ) from error
