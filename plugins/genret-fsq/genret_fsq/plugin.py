"""Registers the identifier scheme `fsq`. The scheme is imported when a recipe names it."""

import genret


@genret.hookimpl
def register_identifiers(register):
    register("fsq", "genret_fsq.identifier:FSQIdentifier")
