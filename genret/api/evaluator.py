"""Additional measurements of a run, during training and in every evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from genret.api.component import Component
from genret.api.identifier import Corpus, Identifier, Identifiers
from genret.api.progress import Ui

if TYPE_CHECKING:
    from genret.evaluate.evaluation import Evaluated
    from genret.run import Run
    from genret.train.copies import TrainingSplits


class Evaluator(Component, ABC):
    """Measures a run and reports figures under its own name in every evaluation of the run.

    Only `evaluate` is required. A run calls its evaluators in the order of their names.
    """

    kind = "evaluator"

    automatic: ClassVar[bool] = True
    """Whether it takes part in every evaluation; others run only by name."""
    depth: ClassVar[int] = 10
    """Images per query that it needs from retrievers without beams."""

    def before_training(self, run: Path, splits: TrainingSplits, ui: Ui) -> None:
        """Called with vectors and files of the splits before identifiers are trained; may write into `run`."""

    def after_identifiers(self, run: Path, identifier: Identifier, named: Identifiers, dev: Corpus, ui: Ui) -> None:
        """Called with the training images' identifiers before the generator is trained; `dev`: development images."""

    def after_training(self, run: Run, ui: Ui) -> None:
        """Called with the finished run before it is measured."""

    @abstractmethod
    def evaluate(self, run: Run, found: Evaluated, ui: Ui) -> dict[str, Any] | None:
        """Figures of one split as plain JSON data; None if there are none."""

    def tables(self, figures: dict[str, Any] | None, split: str) -> list[Any]:
        """What `evaluate` returned, for people: `genret.toolbox.text_table.TextTable`, or lines of text."""
        return []
