"""A pretrained text encoder reads for the generator, which memorizes pictures, too; the run carries all it needs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_a_run_with_a_text_encoder_is_searched_where_it_is_copied_to(tiny: Any, tmp_path: Path) -> None:
    home, folder, run = tmp_path / "home", tmp_path / "reader", tmp_path / "run"
    shutil.copytree(tiny.text, folder)
    for part in ("artifacts", "features"):
        shutil.copytree(tiny.home / part, home / part)
    words = [f"backbone.encoder={folder}", "backbone.num_layers=0", "loss.memorize.weight=1"]
    sets = [part for word in words for part in ("--set", word)]
    answer = tiny.genret("train", tiny.recipe, *sets, "--run", run, "--json", home=home)
    assert answer.code == 0, answer.err
    before = tiny.search("--run", run, home=home)
    assert len(before) == 8
    moved = tmp_path / "elsewhere"
    shutil.copytree(run, moved)
    for gone in (folder, run, home / "artifacts"):
        shutil.rmtree(gone)
    assert tiny.search("--run", moved, home=home) == before


def test_contradictions_are_refused(tiny: Any, failed: Callable[..., None], tmp_path: Path) -> None:
    words = ("--set", "backbone.encoder=x", "--set", "backbone.model=y")
    failed(tiny.genret("train", tiny.recipe, *words, "--run", tmp_path / "run"), 2, "backbone: `encoder`")
