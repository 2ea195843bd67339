"""The parts of `python -m bench.gpu`: what each runs, and for how long at most. The most important come first."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

PYTHON = [sys.executable, "-m"]


class Setup(NamedTuple):
    """What the command was asked for."""

    device: str
    quick: bool
    """Tiny models and catalogs: does it run at all?"""
    flickr8k: Path | None
    """Folder of photographs for the last part."""


class Part(NamedTuple):
    name: str
    title: str
    seconds: int
    """It is stopped after this time."""
    module: str
    words: tuple[str, ...] = ()
    """Further words of its command line."""
    words_if_quick: tuple[str, ...] | None = None
    """Instead of `words`, in a rehearsal; None: the same."""
    reads_photographs: bool = False

    def command(self, setup: Setup, out: Path) -> list[str]:
        words = self.words if self.words_if_quick is None or not setup.quick else self.words_if_quick
        quick = ["--quick"] if setup.quick else []
        data = ["--data", str(setup.flickr8k)] if self.reads_photographs and setup.flickr8k else []
        return [*PYTHON, self.module, "--device", setup.device, "--out", str(out), *quick, *words, *data]


PARTS = [
    Part("correctness", "The same rankings and losses as on the CPU, no waiting for the host", 150, "bench.gpu.checks"),
    Part(
        "decoding",
        "Whole searches against the floor, `generate` and STATIC",
        240,
        "bench.decoding",
        (
            *("--only", "sizes,logic,shapes", "--sizes", "1000,100000,1000000,10000000", "--beams", "20,50,256"),
            *("--backbones", "t5-small,t5-base,llama-1b,qwen3-1.7b", "--rounds", "15", "--seconds", "8"),
        ),
        ("--only", "sizes,shapes"),
    ),
    Part("sid-gr", "The shape that NVIDIA publishes for SID-GR", 120, "bench.gpu.sid_gr"),
    Part(
        "paradigms",
        "Queries per second beside CLIP's text encoder with exact search (the paper's Figure 4)",
        120,
        "bench.decoding",
        ("--only", "paradigms", "--sizes", "1000,300000,1000000", "--rounds", "10", "--seconds", "6"),
        ("--only", "paradigms"),
    ),
    Part("training", "Training steps and image towers: tokens/s, images/s, memory", 90, "bench.gpu.training"),
    Part(
        "decoding-100m",
        "The same search over a hundred million identifiers",
        180,
        "bench.decoding",
        ("--only", "sizes", "--sizes", "10000000,100000000", "--backbones", "t5-small", "--rounds", "8"),
        ("--only", "sizes"),
    ),
    Part(
        "flickr8k",
        "Flickr8k by its recipe, from photographs to figures",
        400,
        "bench.gpu.flickr8k",
        reads_photographs=True,
    ),
]
