"""The last steps of a training: the run directory gets its parts, its catalog and its figures."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genret.assemble import Parts
from genret.catalog.codec import pack
from genret.catalog.store import Catalog, NewImage
from genret.data.images import decode_image, save_thumbnail
from genret.evaluate.run import Evaluation, evaluate
from genret.interfaces import Corpus
from genret.train.artifacts import Artifact, content_key
from genret.train.data import Split, corpus_of
from genret.train.environment import peak_memory_mb

if TYPE_CHECKING:
    from genret.train.run import Pipeline, TrainSummary

CATALOG_CHUNK = 2048


def write_json(path: Path, value: Any) -> None:
    """As a whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False))


def write_text(path: Path, text: str) -> None:
    """As a whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def lend(source: Path, target: Path) -> None:
    """Puts a finished stage into a run directory; hard links where the file system allows, since neither ever changes."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
