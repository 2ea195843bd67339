"""Recall of groups of queries for genret. The evaluator is imported when a run is evaluated."""

import genret


@genret.hookimpl
def register_evaluators(register):
    register("groups", "genret_groups.evaluator:GroupsEvaluator")
