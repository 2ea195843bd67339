"""`genret train`: from a recipe to a finished run.

data → towers, if the encoder fine-tunes → features (cached) → encoder heads → identifier model → targets and quality
gate → generator → the retriever's own stage, if it learns → catalog → figures. The stages are in train/pipeline.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from genret.api import Ui
from genret.errors import UsageError
from genret.folders import FINISHED
from genret.kit.files import write_json, write_text
from genret.plugin.registry import Registries
from genret.recipe.load import load_recipe
from genret.recipe.schema import Recipe
from genret.run import Run
from genret.settings import Settings
from genret.train.artifacts import content_key, only_trainer
from genret.train.finish import fill_run
from genret.train.pipeline import Pipeline
from genret.train.stages import run_stages


class TrainSummary(NamedTuple):
    run: Path
    seconds: dict[str, float]
    evaluation: dict[str, Any] | None
    """None if the test images have no captions"""

    def as_json(self) -> dict[str, Any]:
        return {"run": str(self.run), "seconds": self.seconds, "evaluation": self.evaluation}


def train(recipe: Recipe, folder: Path, registries: Registries, settings: Settings, ui: Ui) -> TrainSummary:
    """Runs the recipe's missing stages and leaves a finished run directory."""
    _begin(recipe, folder, registries)
    with only_trainer(folder):
        pipeline = Pipeline(recipe, folder, registries, settings, ui)
        run, tracked = Run(folder, registries, settings, pipeline.components), registries.function.get("tracked")
        with run, tracked(run, pipeline.log, ui) as pipeline.log:
            return _train(pipeline, run, ui)


def _train(pipeline: Pipeline, run: Run, ui: Ui) -> TrainSummary:
    functions = run.registries.function
    pipeline.evaluators = list(run.evaluators().values())
    made = run_stages(pipeline)
    fill_run(pipeline, made)
    with pipeline.timed("evaluators"):
        for evaluator in pipeline.evaluators:
            evaluator.after_training(run, ui)
    found = None
    if made.searched.captions:
        with pipeline.timed("evaluation"):
            found = run.evaluate(ui=ui)
    facts = {"seconds": pipeline.seconds, "peak_memory_mb": functions.get("peak_memory_mb")()}
    write_json(run.folder / "environment.json", pipeline.environment | facts)
    figures = None if found is None else found.as_json()
    write_json(run.folder / FINISHED, {"seconds": pipeline.seconds, "evaluation": figures})
    for table in () if found is None else run.tables(found):
        ui.table(table)
    ui.result(functions.get("next_steps")(run, made.searched, found, pipeline.seconds))
    return TrainSummary(run.folder, pipeline.seconds, figures)


def _begin(recipe: Recipe, run: Path, registries: Registries) -> None:
    """Writes the resolved recipe, or checks that a resumed run has the same one."""
    path = run / "recipe.yaml"
    if not path.exists():
        write_text(path, recipe.dump_yaml())
        # completed at the end
        write_json(run / "environment.json", registries.function.get("provenance")(recipe, registries))
        return
    before = load_recipe([path], [], registries).canonical()
    now = recipe.canonical()
    if changed := sorted(key for key in now if content_key(now[key]) != content_key(before[key])):
        raise UsageError(f"{run} was begun with another recipe ({', '.join(changed)} differ); name another --run")
