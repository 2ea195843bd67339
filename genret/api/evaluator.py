"""What is measured of a run besides the ledger, and what is found out while it is trained."""

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
    """Looks at a run and says what it finds, as figures under its own name in every evaluation of the run.

    Only `evaluate` has to be there. A run asks its evaluators in the order of their names.
    """

    kind = "evaluator"

    automatic: ClassVar[bool] = True
    """Whether it takes part in every evaluation; others are asked for by name."""
    depth: ClassVar[int] = 10
    """Images of each query that it wants to see of retrievers without beams."""

    def before_training(self, run: Path, splits: TrainingSplits, ui: Ui) -> None:
        """Sees the splits as vectors and files before identifiers and generator are trained; may write into `run`."""

    def after_identifiers(self, run: Path, identifier: Identifier, named: Identifiers, dev: Corpus, ui: Ui) -> None:
        """Sees the identifiers of the training images before a generator learns them; `dev`: the development images."""

    def after_training(self, run: Run, ui: Ui) -> None:
        """Sees the finished run before it is measured."""

    @abstractmethod
    def evaluate(self, run: Run, found: Evaluated, ui: Ui) -> dict[str, Any] | None:
        """Figures of one split as plain JSON data; None where there is nothing to say."""

    def tables(self, figures: dict[str, Any] | None, split: str) -> list[Any]:
        """What `evaluate` returned, for people: `genret.kit.text_table.TextTable`, or lines of text."""
        return []
