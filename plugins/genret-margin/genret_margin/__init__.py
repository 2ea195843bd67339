"""A margin-based rank loss for genret. Imports nothing heavy: the target is loaded when a recipe names it."""

import genret


@genret.hookimpl
def register_losses(register):
    register("margin", "genret_margin.loss:MarginLoss")
