"""A miniature training with `fsq`: train, search, index, evaluate."""

from __future__ import annotations

from pathlib import Path

import torch

import genret_fsq.plugin
from genret.testing import train_run
from genret.testing.world import pictures

RECIPE = """\
identifier: {type: fsq, levels: [4, 3], num_levels: 2, hidden_width: 16, collisions: nearest-free,
  train: {epochs: 2, batch_size: 8}}
backbone: {type: t5, d_model: 16, d_ff: 16, num_layers: 1, num_heads: 2, vocab_size: 128}
loss: {recon: {weight: 1}, align: {weight: 1}, diversity: {weight: 0.1}, token: {weight: 1}, distill: {weight: 1}}
train: {epochs: 2, batch_size: 8, bf16: false}
search: {num_beams: 12}
"""

torch.set_num_threads(1)


def test_trains_and_searches(tmp_path: Path) -> None:
    with train_run(tmp_path / "run", RECIPE, genret_fsq.plugin) as run:
        figures = run.figures
        assert figures["identifier"]["unique_rate"] == 1 and figures["num_images"] == 12
        assert figures["ceiling"]["10"] >= 50 and figures["recall"]["10"] is not None
        hits = run.search("a dog in the sea", k=12).hits
        assert len({hit.image_id for hit in hits}) == 12, "every image can be written"
        assert all(len(hit.identifier) == 2 for hit in hits)
        twin = tmp_path / "twin.png"
        twin.write_bytes(pictures.png("new-1"))
        assert run.index(twin).added == 1
        found = run.search("a dog in the sea", k=20).hits
        assert len({tuple(hit.identifier) for hit in found}) == 13, "the same picture once more has its own identifier"
