"""NVIDIA's published shape of generative recommendation, in its units: Qwen3-1.7B in bfloat16, 256 beams, 3 steps,
1,000 tokens of context (recsys-examples, SID-GR). Weights are random: speed does not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.gpu.options import measure, parser, peak_mb, reset_peak
from bench.measure import Rival, alternate
from bench.models import Model, model
from bench.report import Row, Section, bar, bars, row
from genret.api import Vokens
from genret.decode.beam import beam_search
from genret.decode.trie import Trie

PUBLISHED = {1: 17.6, 8: 93.2}
"""Milliseconds on an H100, by batch."""
SGLANG = {1: 33.5, 8: 199.0}
CODEBOOK_SIZE, STEPS, CONTEXT, BEAMS, IDENTIFIERS = 1024, 3, 1000, 256, 1_000_000


class Shape:
    """The model, and texts that it reads as exactly `context` tokens."""

    def __init__(self, device: torch.device, quick: bool):
        self.context, self.beams, count = (24, 8, 2000) if quick else (CONTEXT, BEAMS, IDENTIFIERS)
        name, dtype = ("llama-tiny", torch.float32) if quick else ("qwen3-1.7b", torch.bfloat16)
        options = {"max_query_tokens": self.context, "prompt": "{query}"}
        self.model: Model = model(name, device, dtype, Vokens((CODEBOOK_SIZE,) * STEPS), options)
        self.trie = Trie.build(self._identifiers(count)).to(device)
        word = self.model.backbone.tokenizer("dogs", add_special_tokens=False)["input_ids"]
        self.text = "dogs " * (self.context // max(1, len(word)) + self.context)  # truncated to the context

    def _identifiers(self, count: int) -> Tensor:
        keys = torch.randperm(CODEBOOK_SIZE**STEPS // 64, generator=torch.Generator().manual_seed(0))[:count] * 64
        codes = torch.stack([keys >> 10 * (STEPS - 1 - level) & (CODEBOOK_SIZE - 1) for level in range(STEPS)], dim=1)
        firsts = torch.tensor([int(tokens[0]) for tokens in self.model.level_tokens])
        return (codes + firsts).int()

    def search(self, batch: int) -> Callable[[int], Any]:
        texts, net = [self.text] * batch, self.model
        return lambda _: beam_search(net.backbone, texts, self.trie, self.beams, "level", net.level_tokens)

    def prefill(self, batch: int) -> Callable[[int], Any]:
        """The context alone."""
        texts = [self.text] * batch

        @torch.no_grad()
        def run(_: int) -> None:
            self.model.backbone.prefill(texts)

        return run

    def floor(self, batch: int) -> Callable[[int], Any]:
        """The model's calls alone: the context, then each step for all beams."""
        texts, backbone, tokens = [self.text] * batch, self.model.backbone, self.model.level_tokens
        stay = torch.arange(self.beams, device=self.model.device).expand(batch, -1)

        @torch.no_grad()
        def run(_: int) -> None:
            state = backbone.prefill(texts)
            backbone.step(state, None, None, tokens[0])
            for level in range(1, STEPS):
                written = tokens[level - 1][: self.beams].expand(batch, -1)
                backbone.step(state, written, torch.zeros_like(stay) if level == 1 else stay, tokens[level])

        return run


def section(device: torch.device, quick: bool) -> Section:
    shape, rows = Shape(device, quick), list[Row]()
    results = []
    for batch in PUBLISHED:
        reset_peak(device)
        rivals = [
            Rival("genret", shape.search(batch)),
            Rival("floor: its model calls", shape.floor(batch)),
            Rival("the context alone", shape.prefill(batch)),
        ]
        timings = alternate(rivals, device, 3 if quick else 20, 15)
        for rival, timing in zip(rivals, timings, strict=True):
            memory = peak_mb(device)
            rows.append(row(timing, batch, system=rival.name, beams=shape.beams, peak_mb=memory))
        for name, known in (("SID-GR, published", PUBLISHED), ("SGLang, published by SID-GR", SGLANG)):
            rows.append({"system": name, "batch": batch, "beams": BEAMS, "ms": known[batch], "note": "H100"})
        if not quick:
            ours = 1000 * timings[0].median
            results += bars(bar(f"genret against SID-GR's published time, batch {batch}", ours / PUBLISHED[batch], 1.0))
        results += bars(bar(f"genret against its floor, batch {batch}", timings[0].median / timings[1].median, 1.15))
    columns = ["system", "beams", "batch", "ms", "queries_per_s", "peak_mb", "note"]
    facts = {"context": shape.context, "steps": STEPS, "identifiers": shape.trie.num_leaves, "quick": quick}
    return Section("SID-GR's shape", columns, rows, results, {"shape": facts})


def main() -> None:
    arguments = parser(__doc__.split("\n")[0]).parse_args()
    device = torch.device(arguments.device)
    measure(arguments, {"sid-gr": lambda: section(device, arguments.quick)})


if __name__ == "__main__":
    main()
