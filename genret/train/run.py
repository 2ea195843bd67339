"""`genret train`: every stage from pictures to a finished run directory.

data → towers, if the encoder fine-tunes → features (cached) → encoder heads → identifier model → targets and quality
gate → generator → catalog.
The stages are in pipeline.py, what happens to a finished one in finish.py.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from genret.errors import GenretError, UsageError
from genret.evaluate.evaluation import Evaluation
from genret.kit.files import mend_lines, write_json, write_text
from genret.lab.leakage.leakage import find_leakage, sentences, summary
from genret.plugin.provenance import provenance
from genret.plugin.registry import Registries
from genret.recipe.load import load_recipe
from genret.recipe.schema import Recipe
from genret.settings import Settings
from genret.train.artifacts import Artifact, content_key, only_trainer
from genret.train.data import Listing, Split, side_of
from genret.train.finish import finish_run
from genret.train.pipeline import Pipeline

Images = TypeVar("Images", Listing, Split)


class TrainSummary(NamedTuple):
    run: Path
    seconds: dict[str, float]
    evaluation: dict[str, Any] | None
    """None where the searched pictures have no captions to search by"""

    def as_json(self) -> dict[str, Any]:
        return {"run": str(self.run), "seconds": self.seconds, "evaluation": self.evaluation}


def train(
    recipe: Recipe, run: Path, registries: Registries, settings: Settings, ui: Any, resume: bool = False
) -> TrainSummary:
    """Runs what is missing of the recipe's stages and leaves a finished run directory."""
    _begin(recipe, run, registries)
    with only_trainer(run):
        mend_lines(run / "metrics.jsonl")
        return _train(recipe, run, registries, settings, ui)


def _train(recipe: Recipe, run: Path, registries: Registries, settings: Settings, ui: Any) -> TrainSummary:
    pipeline = Pipeline(recipe, run, registries, settings, ui)
    dataset, encoder = pipeline.parts.dataset, pipeline.parts.encoder
    artifacts: dict[str, Artifact] = {}
    if encoder.finetunes:
        dev_files, test_files = pipeline.files(dataset.dev_split), pipeline.files(dataset.test_split)
        train_files = _without_files(pipeline.files(dataset.train_split), [dev_files, test_files])
        artifacts["towers"] = pipeline.towers(train_files, dev_files)
    with pipeline.timed("features"):
        train_split = pipeline.read(dataset.train_split, views=encoder.num_views)
        dev_split, test_split = pipeline.read(dataset.dev_split), pipeline.read(dataset.test_split)
    with pipeline.timed("leakage"):
        train, dev, test = (side_of(one, pipeline.files(one.name)) for one in (train_split, dev_split, test_split))
        leakage, gone = find_leakage(train, dev, test, dataset.concepts)
        train_split = _some_left(train_split, train_split.without({train_split.hashes[row] for row in gone}))
    for split in (dev_split, test_split):
        for line in sentences(summary(leakage, split.name), split.name):
            ui.note(f"leakage: {line}")
    artifacts["encoder"] = heads = pipeline.heads(train_split, dev_split)
    if recipe.retriever == "generative":
        train_corpus, dev_corpus, searched = (pipeline.corpus(split) for split in (train_split, dev_split, test_split))
        corpora = pipeline.corpora(train_corpus, searched)
        leakage = leakage._replace(remark=corpora.remark)
        artifacts["identifier"] = identifier = pipeline.identifier(corpora, heads)
        targets = pipeline.targets(corpora.generator, dev_corpus, identifier, train_split, dev_split)
        artifacts["generator"] = pipeline.generator(corpora.generator, dev_corpus, targets)
    leakage.write(run)
    found = finish_run(pipeline, artifacts, test_split, dev_split)
    for table in found.tables() if found is not None else ():
        ui.table(table)
    ui.result(next_steps(run, test_split, found, pipeline.seconds))
    return TrainSummary(run, pipeline.seconds, None if found is None else found.as_json())


def next_steps(run: Path, searched: Split, found: Evaluation | None, seconds: dict[str, float]) -> str:
    """The last words of a training: what was made, how good it is, what to type next."""
    how = "not measured: they have no captions"
    if found is not None and (recall := found.recall["10"]) is not None:
        how = f"{recall:.0f} % of them are found among the first ten"
    count = f"{len(searched.records):,}"
    example = shlex.quote(searched.captions[0]) if searched.captions else '"a happy dog"'
    return (
        f"\n{run} is ready after {sum(seconds.values()):.0f} s. It searches {count} pictures; {how}.\n"
        f"Next:  genret search {example}\n"
        "       genret index FOLDER          adds your own pictures\n"
        "       genret evaluate --num-beams 1,5,10,20"
    )


def _begin(recipe: Recipe, run: Path, registries: Registries) -> None:
    """Writes the resolved recipe, or checks that a resumed run is the same experiment."""
    path = run / "recipe.yaml"
    if not path.exists():
        write_text(path, recipe.dump_yaml())
        write_json(run / "environment.json", provenance(recipe, registries))  # the whole of it comes with the end
        return
    before = load_recipe([path], [], registries).canonical()
    now = recipe.canonical()
    if changed := sorted(key for key in now if content_key(now[key]) != content_key(before[key])):
        raise UsageError(f"{run} was begun with another recipe ({', '.join(changed)} differ); name another --run")


def _without_files(train: Listing, searched: list[Listing]) -> Listing:
    """Towers are never trained on a file that is also searched. Without vectors, pixels are not compared yet."""
    return _some_left(train, train.without({content for split in searched for content in split.hashes}))


def _some_left(train: Images, kept: Images) -> Images:
    if train.records and not kept.records:
        raise GenretError("every training picture is also one that is searched; give train another split")
    return kept
