"""Options of a benchmark run, and helpers of its sections."""

from __future__ import annotations

import sys
import time
from typing import NamedTuple

import torch

from bench.identifiers import Distribution, identifiers, tokens_of
from bench.measure import Rival, alternate
from bench.models import Model
from bench.report import short
from genret.decode.beam import beam_search
from genret.decode.guide import Guide
from genret.decode.trie import Trie
from genret.lab.speed.speed import Timing


class Options(NamedTuple):
    device: torch.device
    sizes: list[int]
    """Catalog sizes, in identifiers, ascending."""
    backbones: list[str]
    """The first is measured for all sizes, all of them by beams and batches."""
    beams: list[int]
    batches: list[int]
    num_beams: int
    """Number of beams, for all rows that do not vary it."""
    rounds: int
    seconds: float
    """Time limit for the start of a comparison's last round."""
    distribution: Distribution
    dtype: torch.dtype
    quick: bool = False
    """Whether to test the benchmark's code only, with networks of one layer."""

    @property
    def shape_size(self) -> int:
        """The catalog size for comparing beams, batches and backbones."""
        return max(size for size in self.sizes if size <= max(1_000_000, self.sizes[0]))

    def race(self, rivals: list[Rival], brief: bool = False) -> list[Timing]:
        """Times candidates in turns. `brief`: a quarter of the time, if no bound depends on it."""
        say(f"  {len(rivals)} rivals: " + ", ".join(rival.name for rival in rivals))
        return alternate(rivals, self.device, self.rounds, self.seconds / 4 if brief else self.seconds)


def say(text: str) -> None:
    """Progress, to standard error."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def tries(options: Options, model: Model, sizes: list[int] | None = None) -> dict[int, Trie]:
    """A trie of each size in the model's tokens."""
    built = {}
    for size in options.sizes if sizes is None else sizes:
        say(f"  trie of {short(size)} identifiers")
        codes = identifiers(size, options.distribution)
        built[size] = Trie.build(tokens_of(codes, model.level_tokens)).to(options.device)
    return built


def genret_search(
    model: Model,
    trie: Trie,
    texts: list[str],
    num_beams: int,
    guide: Guide | None = None,
    written_levels: int | None = None,
) -> object:
    """A search as in genret's retrievers: scores are normalized over the codes of each level."""
    return beam_search(model.backbone, texts, trie, num_beams, "level", model.level_tokens, None, guide, written_levels)
