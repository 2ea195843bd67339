"""Leakage of searched images into training and development, reported with every figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from genret.api import Evaluator, Ui
from genret.evaluate.evaluation import Evaluated
from genret.lab.leakage.leakage import find_leakage, read_leakage, sentences, summary

if TYPE_CHECKING:
    from genret.run import Run
    from genret.train.copies import TrainingSplits


class LeakageEvaluator(Evaluator):
    """Leakage of searched images into training and development: copies, near-duplicates, captions of the same words."""

    def before_training(self, run: Path, splits: TrainingSplits, ui: Ui) -> None:
        if splits.train is splits.test:
            ui.note("transductive: the pictures that are searched are those that the identifiers were made for")
            return
        found = find_leakage(splits)
        found.write(run)
        for split in (splits.dev, splits.test):
            for line in sentences(summary(found, split.name), split.name):
                ui.note(f"leakage: {line}")

    def evaluate(self, run: Run, found: Evaluated, ui: Ui) -> dict[str, Any] | None:
        return read_leakage(run.folder, found.asked.split)

    def tables(self, figures: dict[str, Any] | None, split: str) -> list[Any]:
        return [f"leakage: {line}" for line in sentences(figures, split)]
