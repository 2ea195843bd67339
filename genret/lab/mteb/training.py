"""Training on a task's own training split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genret.folders import is_finished
from genret.lab.mteb.tasks import TABLE, write_task
from genret.lab.sweep.grid import slug
from genret.plugin.loading import load_plugins
from genret.recipe.load import load_recipe
from genret.settings import Settings
from genret.shell.ui import Ui
from genret.train.artifacts import content_key
from genret.training import train


def train_on(
    task: Any, recipes: Sequence[Path], overrides: Sequence[str], train_split: str, settings: Settings
) -> Path:
    """The finished run of this recipe on this task: found by the recipe, continued if it was interrupted."""
    name = slug(task.metadata.name)
    test_split = "test" if "test" in task.eval_splits else task.eval_splits[-1]
    data = write_task(
        task, settings.home / "mteb" / f"{name}-{slug(train_split)}", train_split=train_split, test_split=test_split
    )
    registries = load_plugins((), settings).registries
    dataset = {"type": "folder", "root": str(data), "captions": TABLE}
    recipe = load_recipe(recipes, [f"dataset={json.dumps(dataset)}", *overrides], registries)
    run = settings.runs_dir / f"mteb-{name}-{content_key(recipe.canonical())[:12]}"
    if not is_finished(run):
        run.mkdir(parents=True, exist_ok=True)
        with Ui(True) as ui:
            train(recipe, run, registries, settings, ui)
    return run
