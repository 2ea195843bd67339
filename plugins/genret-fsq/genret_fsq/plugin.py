"""What this package adds to genret. Imports nothing heavy: the scheme is loaded when a recipe names it."""

import genret


@genret.hookimpl
def register_identifiers(register):
    register("fsq", "genret_fsq.identifier:FSQIdentifier")
