"""Random identifiers for genret. Imports nothing heavy: the target is loaded when a recipe names it."""

import genret


@genret.hookimpl
def register_identifiers(register):
    register("random", "genret_random.identifier:RandomIdentifier")
