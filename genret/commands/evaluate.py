"""`genret evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genret.cli.options import JsonOption, RunOption, user_path
from genret.cli.state import state_of
from genret.errors import UsageError


def add(cli: typer.Typer) -> None:
    cli.command("evaluate", short_help="Measure what is found and what is lost.")(evaluate)


def evaluate(
    context: typer.Context,
    run: RunOption = None,
    split: Annotated[str, typer.Option(help="Whose pictures are searched, by whose captions.")] = "test",
    num_beams: Annotated[
        str | None, typer.Option(metavar="B,B,...", help="Beam widths to measure. [default: the recipe's]")
    ] = None,
    trec: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", parser=user_path, help="Write TREC's run, qrels and topics there, for trec_eval and others."
        ),
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="First fit the confidence of searches anew, on the development split.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure how many pictures are found, and where the others are lost.

    Recall of the model, of the same encoder as a plain two-tower search, and of the identifiers' upper bound (ceiling);
    then the ledger, which splits the loss into quantization, each level, beams, collisions and reranking.
    Only the pictures of the split are searched, not those that `genret index` has added.

    \b
    Examples:
      genret evaluate
      genret evaluate --split dev --num-beams 1,5,10,20 --json
      genret evaluate --trec trec/
      genret evaluate --calibrate
    """
    state = state_of(context)
    beams = _widths(num_beams)
    with state.ui(as_json) as ui, state.open(run) as opened:
        if calibrate:
            for evaluator in opened.evaluators().values():
                evaluator.after_training(opened, ui)
        also = {} if trec is None else {"trec": {"folder": str(trec)}}
        evaluation = opened.evaluate(split, beams, also=also, ui=ui)
        if as_json:
            ui.document(evaluation.as_json())
        else:
            for table in opened.tables(evaluation):
                ui.table(table)


def _widths(text: str | None) -> list[int]:
    """ "1,5,10" → [1, 5, 10]; empty for the recipe's own."""
    if text is None:
        return []
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and 0 < int(word) < 100_000 for word in words):
        raise UsageError(f"--num-beams {text}: give whole numbers from 1, separated by commas, e.g. 1,5,10,20")
    return sorted({int(word) for word in words})
