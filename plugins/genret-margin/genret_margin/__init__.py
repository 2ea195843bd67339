"""A margin-based rank loss for genret. The loss is imported when a recipe names it."""

import genret


@genret.hookimpl
def register_losses(register):
    register("margin", "genret_margin.loss:MarginLoss")
