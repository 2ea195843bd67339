"""Fingerprints of plugin code, so that results made by old code are not reused after the code has changed.

genret's own components have none: when their results change, `train/artifacts.py:FORMATS` is raised. The golden files
of the tests show when that is needed.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Literal

from genret.api import Component, Encoder


def code_key(component: Component) -> str | None:
    """A hash of the source files of the packages that its classes come from; None for genret's own components."""
    modules = sorted({kind.__module__ for kind in type(component).__mro__})
    files = [file for module in modules if (file := _source(module)) is not None]
    return _hash(tuple(files)) if files else None


def code_keys(components: Iterable[Component | None]) -> dict[str, str]:
    """Fingerprints of components that plugins registered, by kind and class."""
    there = [component for component in components if component is not None]
    return {f"{one.kind} {type(one).__qualname__}": key for one in there if (key := code_key(one)) is not None}


def tower_key(encoder: Encoder, modality: Literal["image", "text"]) -> str:
    """`Encoder.tower_key` plus, for a plugin's encoder, its code: everything that cached vectors depend on."""
    code = code_key(encoder)
    return encoder.tower_key(modality) + (f" code {code}" if code else "")


def _source(module: str) -> Path | None:
    """The folder of the module's top package, or its own file; None for genret and the standard library."""
    top = module.partition(".")[0]
    file = getattr(sys.modules.get(module), "__file__", None)
    if top == "genret" or top in sys.stdlib_module_names or file is None:
        return None
    package = getattr(sys.modules.get(top), "__path__", None)
    return Path(next(iter(package))) if package else Path(file)


@lru_cache(maxsize=64)
def _hash(places: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for place in places:
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(f"{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:20]
