"""Recall of groups of queries for genret. Imports nothing heavy: the target is loaded when a run is evaluated."""

import genret


@genret.hookimpl
def register_evaluators(register):
    register("groups", "genret_groups.evaluator:GroupsEvaluator")
