"""Codebook diagnostics between tokenizer and generator training.

Codebook collapse is a common failure and can be detected before a generator is trained.

    R identifiers   M levels   Q queries   N images   D width
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from genret.evaluate.metrics import Relevant, RelevantLike, recalls
from genret.kit.arrays import Ints
from genret.lab.report.text import share
from genret.search.dense import dense_ranks
from genret.toolbox.codes.usage import usage_statistics

COLLAPSED_BELOW = 0.1
"""A level is collapsed if its perplexity is below this share of the codes that it could use."""
JUDGED_FROM = 8
"""Levels that could use fewer codes are not checked: a code that only resolves collisions is nearly constant."""
UNIQUE_FROM = 0.7
"""Share of identifiers that should belong to one image alone."""
CEILING_FROM = 0.7
"""Share of the original vectors' recall@10 that quantized ones should reach."""


class LevelQuality(NamedTuple):
    size: int
    """codes of the level"""
    usable: int
    """maximum number of codes that R identifiers could use"""
    usage: float
    """share of the codes that occur, in percent"""
    entropy: float
    """in bits"""
    perplexity: float
    """2^entropy: the equivalent number of equally frequent codes"""
    learned: bool = True
    """whether it has a learned codebook; a level that only resolves collisions is uneven by design"""

    @property
    def collapsed(self) -> bool:
        judged = self.learned and self.usable >= JUDGED_FROM
        return judged and self.perplexity < max(1.5, COLLAPSED_BELOW * self.usable)


class Gate(NamedTuple):
    """Recalls are percentages, by cutoff."""

    levels: list[LevelQuality]
    num_identifiers: int
    unique_rate: float
    """share of the R identifiers that belong to one image only, 0 to 1"""
    max_bucket: int
    """largest number of images with one identifier"""
    ceiling: dict[str, float | None] | None
    """dense search by reconstructed vectors, the quantization upper bound; None if codes have no vectors"""
    raw: dict[str, float | None]
    """dense search by the vectors themselves"""

    @property
    def ok(self) -> bool:
        return not self.warnings()

    @property
    def num_collapsed(self) -> int:
        return sum(level.collapsed for level in self.levels)

    def warnings(self) -> list[str]:
        """Problems in plain words, each with a suggestion; those of the collapsed levels come first."""
        found = [
            f"level {number} of the identifiers is collapsed: it uses {level.usage:.0f} % of its {level.size} codes, "
            f"as unevenly as if there were {level.perplexity:.1f} (of {level.usable} that it could use); try a smaller "
            "codebook, fewer levels or more tokenizer epochs"
            for number, level in enumerate(self.levels, 1)
            if level.collapsed
        ]
        if self.unique_rate < UNIQUE_FROM:
            found.append(
                f"only {100 * self.unique_rate:.0f} % of the images have an identifier of their own (up to "
                f"{self.max_bucket} share one); try more levels or a larger codebook"
            )
        if self.ceiling is not None and (self._at_10(self.ceiling) < CEILING_FROM * self._at_10(self.raw)):
            found.append(
                f"the identifiers keep too little of the pictures: recall@10 by what they stand for is "
                f"{self._at_10(self.ceiling):.1f} %, by the vectors themselves {self._at_10(self.raw):.1f} %; "
                "generation will hardly do better; try more levels, a larger codebook or a higher weight of the align "
                "loss"
            )
        return found

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "warnings": self.warnings(),
            "num_identifiers": self.num_identifiers,
            "unique_rate": self.unique_rate,
            "max_bucket": self.max_bucket,
            "usage": [level.usage for level in self.levels],
            "entropy": [level.entropy for level in self.levels],
            "perplexity": [level.perplexity for level in self.levels],
            "codebook_size": [level.size for level in self.levels],
            "ceiling": self.ceiling,
            "raw": self.raw,
        }

    @staticmethod
    def _at_10(figures: dict[str, float | None]) -> float:
        return figures["10"] or 0.0


def quality_gate(
    codes: Tensor,
    sizes: Sequence[int],
    query_features: Tensor,
    features: Tensor,
    reconstruction: Tensor | None,
    relevant: Tensor | RelevantLike,
    learned: int | None = None,
) -> Gate:
    """Diagnostics from a scheme's codes (R, M), -1 after the end, and from a dense search over N images.

    query_features (Q, D) search features (N, D) and the same images' vectors decoded from codes, reconstruction (N, D);
    `relevant`: (Q,) image rows or a collection of rows per query. `learned`: as in `Vokens`.
    """
    assert codes.ndim == 2 and codes.shape[1] == len(sizes), "one codebook size per level"
    codes = codes.cpu()
    usable = [min(size, int((codes[:, level] >= 0).sum())) for level, size in enumerate(sizes)]
    levels = [
        LevelQuality(
            size, most, 100.0 * found.usage, found.entropy, found.perplexity, learned is None or level < learned
        )
        for level, (size, most, found) in enumerate(
            zip(sizes, usable, usage_statistics(codes, tuple(sizes)), strict=True)
        )
    ]
    buckets = torch.unique(codes, dim=0, return_counts=True)[1] if len(codes) else torch.zeros(0, dtype=torch.int64)
    wanted = Relevant.of(relevant.cpu().numpy() if isinstance(relevant, Tensor) else relevant)
    return Gate(
        levels,
        len(codes),
        float((buckets == 1).sum() / max(1, len(codes))),
        int(buckets.max()) if len(buckets) else 0,
        None if reconstruction is None else recalls(_ranks(query_features, reconstruction, wanted)),
        recalls(_ranks(query_features, features, wanted)),
    )


def gate_table(gate: Gate, measure: str = "R@1/5/10") -> Table:
    """A table for the terminal: a row per level, then the overall figures, named `measure`."""
    verdict = "good" if gate.ok else f"{len(gate.warnings())} warning{'s' * (len(gate.warnings()) > 1)}"
    recall = [f"raw vectors {_figures(gate.raw)}"]
    if gate.ceiling is not None:
        recall.insert(0, f"reconstructed (the ceiling) {_figures(gate.ceiling)}")
    table = Table(
        title=f"Quality of {gate.num_identifiers:,} identifiers: {verdict}",
        caption=f"{share(gate.unique_rate)} % unique, at most {gate.max_bucket} images share one\n"
        f"{measure} in %: " + "; ".join(recall),
        title_justify="left",
        caption_justify="left",
    )
    for heading in ("level", "codes", "used", "entropy", "perplexity", ""):
        table.add_column(heading, justify="right")
    for number, level in enumerate(gate.levels, 1):
        word = "[yellow]collapsed[/]" if level.collapsed else ""
        cells = (str(level.size), f"{level.usage:.0f} %", f"{level.entropy:.2f} bits", f"{level.perplexity:.1f}")
        table.add_row(str(number), *cells, word)
    return table


def _ranks(queries: Tensor, images: Tensor, relevant: Relevant) -> Ints:
    """(Q,) ranks of the highest-ranked relevant images in a dense search."""
    pairs = dense_ranks(queries.cpu().float()[torch.from_numpy(relevant.queries)], images.cpu().float(), relevant.rows)
    starts = np.searchsorted(relevant.queries, np.arange(relevant.num_queries))
    return np.minimum.reduceat(pairs, starts) if relevant.num_queries else pairs


def _figures(recall: dict[str, float | None]) -> str:
    return " / ".join("–" if value is None else f"{value:.1f}" for value in recall.values())
