"""Random identifiers for genret. The scheme is imported when a recipe names it."""

import genret


@genret.hookimpl
def register_identifiers(register):
    register("random", "genret_random.identifier:RandomIdentifier")
