"""`genret train`: from a recipe to a finished run.

data → towers, if the encoder fine-tunes → features (cached) → encoder heads → identifier model → targets and quality
gate → generator → the retriever's own stage, if it learns → catalog → figures. The stages are in train/pipeline.py.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, NamedTuple

from genret.api import Ui
from genret.errors import UsageError
from genret.evaluate.evaluation import Evaluation
from genret.folders import FINISHED, run_option
from genret.kit.files import mend_lines, write_json, write_text
from genret.plugin.provenance import provenance
from genret.plugin.registry import Registries
from genret.recipe.load import load_recipe
from genret.recipe.schema import Recipe
from genret.run import Run
from genret.settings import Settings
from genret.train.artifacts import content_key, only_trainer
from genret.train.data import Split
from genret.train.environment import peak_memory_mb
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
        mend_lines(folder / "metrics.jsonl")
        pipeline = Pipeline(recipe, folder, registries, settings, ui)
        with Run(folder, registries, settings, pipeline.components) as run:
            return _train(pipeline, run, ui)


def _train(pipeline: Pipeline, run: Run, ui: Ui) -> TrainSummary:
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
    facts = {"seconds": pipeline.seconds, "peak_memory_mb": peak_memory_mb()}
    write_json(run.folder / "environment.json", pipeline.environment | facts)
    figures = None if found is None else found.as_json()
    write_json(run.folder / FINISHED, {"seconds": pipeline.seconds, "evaluation": figures})
    for table in () if found is None else run.tables(found):
        ui.table(table)
    ui.result(next_steps(run, made.searched, found, pipeline.seconds))
    return TrainSummary(run.folder, pipeline.seconds, figures)


def next_steps(run: Run, searched: Split, found: Evaluation | None, seconds: dict[str, float]) -> str:
    """The final message of a training: what was made, how good it is, what to run next."""
    count = len(searched.records)
    first, place = ("10", "among the first ten") if count > 10 else ("1", "at the first place")
    how = "not measured: they have no captions"
    if found is not None and (recall := found.recall[first]) is not None:
        how = f"{recall:.0f} % of their captions find the right one {place}"
    example = shlex.quote(searched.captions[0]) if searched.captions else '"a happy dog"'
    option = run_option(run.folder, run.settings)
    measure = f"\n       genret evaluate{option} --num-beams 1,5,10,20" if searched.captions else ""
    return (
        f"\n{run.folder} is ready after {sum(seconds.values()):.0f} s. It searches {count:,} pictures; {how}.\n"
        f"Next:  genret search {example}{option}\n"
        f"       genret index FOLDER{option}          adds your own pictures{measure}"
    )


def _begin(recipe: Recipe, run: Path, registries: Registries) -> None:
    """Writes the resolved recipe, or checks that a resumed run has the same one."""
    path = run / "recipe.yaml"
    if not path.exists():
        write_text(path, recipe.dump_yaml())
        write_json(run / "environment.json", provenance(recipe, registries))  # completed at the end
        return
    before = load_recipe([path], [], registries).canonical()
    now = recipe.canonical()
    if changed := sorted(key for key in now if content_key(now[key]) != content_key(before[key])):
        raise UsageError(f"{run} was begun with another recipe ({', '.join(changed)} differ); name another --run")
