"""The quality gate against formulas and plain loops."""

from __future__ import annotations

import io
import json
import math
from collections import Counter

import numpy as np
import pytest
import torch
from rich.console import Console

from genret.lab.codebooks.gate import gate_table, quality_gate
from genret.lab.report.text import share


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    vectors = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return vectors / vectors.norm(dim=-1, keepdim=True)


def plain_recall(queries, images, relevant, k) -> float:
    hits = 0
    for query, rows in zip(queries, relevant, strict=True):
        similarity = [float(query @ image) for image in images]
        order = sorted(range(len(images)), key=lambda row: (-similarity[row], row))
        hits += any(row in rows for row in order[:k])
    return 100 * hits / len(queries)


def test_figures_equal_plain_loops():
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(0, 6, (200, 2), generator=generator)
    codes[:, 1] %= 3
    codes[:20, 1] = -1  # shorter identifiers
    features, queries = unit(40, 8), unit(25, 8, seed=2)
    reconstruction = features + 0.3 * unit(40, 8, seed=3)
    relevant = [[int(row) for row in torch.randint(0, 40, (1 + q % 3,), generator=generator)] for q in range(25)]
    gate = quality_gate(codes, (6, 16), queries, features, reconstruction, relevant)

    for level, size in enumerate((6, 16)):
        counts = Counter(code for code in codes[:, level].tolist() if code >= 0)
        total = sum(counts.values())
        entropy = -sum(n / total * math.log2(n / total) for n in counts.values())
        assert gate.levels[level].usage == pytest.approx(100 * len(counts) / size)
        assert gate.levels[level].entropy == pytest.approx(entropy)
        assert gate.levels[level].perplexity == pytest.approx(2**entropy)
    buckets = Counter(map(tuple, codes.tolist()))
    assert gate.max_bucket == max(buckets.values())
    assert gate.unique_rate == pytest.approx(sum(n == 1 for n in buckets.values()) / 200)
    for k in (1, 5, 10):
        assert gate.raw[str(k)] == pytest.approx(plain_recall(queries, features, relevant, k))
        assert gate.ceiling[str(k)] == pytest.approx(plain_recall(queries, reconstruction, relevant, k))


def spread(size: int, count: int, levels: int = 2) -> torch.Tensor:
    """Codes that use every level evenly and are all different."""
    rows = torch.arange(count)
    return torch.stack([(rows // size**level) % size for level in range(levels)], dim=1)


def gate_of(codes, sizes, noise=0.0, reconstruct=True):
    features = unit(60, 16)
    reconstruction = (1 - noise) * features + noise * unit(60, 16, seed=5) if reconstruct else None
    return quality_gate(codes, sizes, features + 0.05 * unit(60, 16, seed=9), features, reconstruction, np.arange(60))


def test_good_identifiers_pass():
    gate = gate_of(spread(16, 256), (16, 16))
    assert gate.ok and gate.warnings() == [] and gate.raw["1"] == 100.0
    assert gate.as_json()["ok"] is True


def test_a_collapsed_level_is_named():
    codes = spread(64, 4096)
    codes[:, 1] = torch.where(torch.arange(4096) % 50 == 0, codes[:, 1], 7)
    gate = gate_of(codes, (64, 64))
    assert not gate.ok and any("level 2 of the identifiers is collapsed" in w for w in gate.warnings())
    assert not any("level 1" in w for w in gate.warnings())


def test_a_level_that_only_counts_is_not_judged():
    codes = spread(64, 4096)
    codes[:, 1] = torch.where(torch.arange(4096) % 50 == 0, codes[:, 1], 7)
    features = unit(60, 16)
    found = quality_gate(codes, (64, 64), features, features, None, np.arange(60), learned=1)
    assert not any("collapsed" in warning for warning in found.warnings())
    assert [level.learned for level in found.levels] == [True, False]


def test_few_images_cannot_use_a_large_codebook():
    gate = gate_of(spread(1024, 60), (1024, 1024))
    assert gate.levels[0].usable == 60 and not gate.levels[0].collapsed
    assert gate.levels[1].collapsed  # one code for all
    assert (
        not gate_of(torch.stack([torch.arange(60), torch.zeros(60, dtype=torch.int64)], 1), (64, 2)).levels[1].collapsed
    )


def test_shared_identifiers_and_a_low_ceiling_are_named():
    gate = gate_of(spread(16, 128).repeat(3, 1), (16, 16), noise=0.99)
    shared, ceiling = gate.warnings()
    assert gate.unique_rate == 0 and gate.max_bucket == 3
    assert "only 0 % of the images have an identifier of their own (up to 3 share one)" in shared
    assert "keep too little" in ceiling and "100.0 %" in ceiling


def test_schemes_without_reconstruction_have_no_ceiling():
    gate = gate_of(spread(16, 256), (16, 16), reconstruct=False)
    assert gate.ceiling is None and gate.ok
    assert json.loads(json.dumps(gate.as_json(), allow_nan=False))["ceiling"] is None


def test_the_table_shows_it_all():
    codes = spread(64, 4096)
    codes[:, 1] = 7
    gate = gate_of(codes, (64, 64))
    console = Console(file=io.StringIO(), width=120)
    console.print(gate_table(gate))
    text = console.file.getvalue()
    assert "4,096 identifiers: 2 warnings" in text and "collapsed" in text
    assert f"{gate.raw['1']:.1f} / {gate.raw['5']:.1f} / {gate.raw['10']:.1f}" in text
    assert len([line for line in text.splitlines() if "bits" in line]) == 2


def test_relevant_rows_as_a_tensor():
    features = unit(10, 4)
    gate = quality_gate(spread(8, 10), (8, 8), features, features, features, torch.arange(10))
    assert gate.raw == gate.ceiling == {"1": 100.0, "5": 100.0, "10": 100.0}


@pytest.mark.parametrize(
    ("part", "said"), [(1.0, "100.0"), (0.99976, "99.9"), (0.9, "90.0"), (0.0, "0.0"), (0.3, "30.0")]
)
def test_all_means_all(part, said):
    """4,198 of 4,199 identifiers that are unique are not 100.0 %."""
    assert share(part) == said
