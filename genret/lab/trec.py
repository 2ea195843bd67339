"""Writes runs, relevance judgements and topics in TREC format, for trec_eval, ir_measures, ranx and others.

Fields are separated by blanks, so white space, control characters and `%` in ids are percent-encoded (UTF-8): `my
cat.png` becomes `my%20cat.png`. `urllib.parse.unquote` decodes them.

These programs order by score alone and break ties by id. To keep the order of the search, an image whose score is not
below its predecessor's is written with the next smaller single-precision number. Queries without results have no line
in a run: use trec_eval's option `-c`, which counts them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from pydantic import Field

from genret import api
from genret.api import Evaluator, Ui
from genret.errors import GenretError
from genret.evaluate.evaluation import Evaluated
from genret.kit.files import replacing
from genret.kit.text import clean

if TYPE_CHECKING:
    from genret.run import Run


class TrecEvaluator(Evaluator):
    """Writes results and relevant images as TREC's run and qrels files."""

    automatic = False
    depth = 100

    class Config(api.Config):
        folder: str = Field(min_length=1)
        """The folder of the files."""

    def evaluate(self, run: Run, found: Evaluated, ui: Ui) -> dict[str, Any] | None:
        if found.answer is None:
            return None
        folder, asked = Path(self.config.folder).expanduser(), found.asked
        width = found.evaluation.num_beams
        tag = f"genret-{run.recipe.retriever.type}" if width is None else f"genret-{width}-beams"
        query_ids = [f"q{row}" for row in range(len(asked.queries))]
        image_ids = [[asked.image_ids[image] for image in row if image >= 0] for row in found.answer.images]
        scores = [row[: len(ids)].tolist() for row, ids in zip(found.answer.scores, image_ids, strict=True)]
        folder.mkdir(parents=True, exist_ok=True)
        write_run(folder / "run.trec", query_ids, image_ids, scores, tag)
        write_qrels(folder / "qrels.trec", query_ids, [[asked.image_ids[row]] for row in asked.relevant])
        write_topics(folder / "topics.tsv", query_ids, asked.queries)
        return {"folder": str(folder), "images": max(map(len, image_ids), default=0)}


def write_run(
    path: Path,
    query_ids: Sequence[str],
    image_ids: Sequence[Sequence[str]],
    scores: Sequence[Sequence[float]],
    tag: str,
) -> None:
    """Of each query, the images found, best first, and their scores. `path` is replaced atomically."""

    def lines() -> Iterator[str]:
        for query, images, given in zip(query_ids, image_ids, scores, strict=True):
            written = falling(given)
            for rank, (image, score) in enumerate(zip(images, written, strict=True), 1):
                yield f"{escaped(query)} Q0 {escaped(image)} {rank} {score:.9g} {escaped(tag)}\n"

    _write(path, lines())


def write_qrels(path: Path, query_ids: Sequence[str], image_ids: Sequence[Sequence[str]]) -> None:
    """Of each query, the relevant images."""

    def lines() -> Iterator[str]:
        for query, images in zip(query_ids, image_ids, strict=True):
            for image in images:
                yield f"{escaped(query)} 0 {escaped(image)} 1\n"

    _write(path, lines())


def write_topics(path: Path, query_ids: Sequence[str], queries: Sequence[str]) -> None:
    """The queries: id, tab, words, as ir_datasets and Anserini read topics. White space in a query becomes a blank."""
    _write(
        path,
        (
            f"{escaped(name)}\t{' '.join(clean(query).split())}\n"
            for name, query in zip(query_ids, queries, strict=True)
        ),
    )


def escaped(name: str) -> str:
    """An id without blanks, control characters and percent signs."""
    assert name, "an id must not be empty"
    return "".join(
        quote(character, safe="") if character == "%" or character.isspace() or _is_control(character) else character
        for character in name
    )


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Zs", "Zl", "Zp")


def falling(scores: Sequence[float]) -> list[float]:
    """Scores in single precision, as trec_eval reads them, each below the one before."""
    lower: list[float] = []
    below = np.float32(np.inf)
    for score in scores:
        below = min(np.float32(score), np.nextafter(below, np.float32(-np.inf)))
        assert np.isfinite(below), "scores must be finite"
        lower.append(float(below))
    return lower


def _write(path: Path, lines: Iterator[str]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(lines)
    except OSError as error:
        reason = error.strerror or str(error)
        raise GenretError(f"cannot write {path}: {reason}; try another folder or make room") from error
