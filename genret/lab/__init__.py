"""Tools for finished runs: moving a catalog, compare, sweep, reproduce, report, confidence, leakage, MTEB. A plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genret import hookimpl
from genret.plugin.hookspecs import Register

if TYPE_CHECKING:
    import typer


@hookimpl
def register_evaluators(register: Register) -> None:
    register("codebooks", "genret.lab.codebooks.evaluator:CodebookEvaluator")
    register("confidence", "genret.lab.confidence.evaluator:ConfidenceEvaluator")
    register("leakage", "genret.lab.leakage.evaluator:LeakageEvaluator")
    register("trec", "genret.lab.trec:TrecEvaluator")


@hookimpl
def register_commands(cli: typer.Typer) -> None:
    from genret.lab.commands import catalog, compare, explain, report, reproduce, sweep

    for command in (catalog, explain, compare, report, sweep, reproduce):
        command.add(cli)
