"""What this package adds to genret. Imports nothing heavy: the scheme is loaded when a recipe names it."""

from __future__ import annotations

import genret
from genret.plugin.hookspecs import Register


@genret.hookimpl
def register_identifiers(register: Register) -> None:
    register("fsq", "genret_fsq.identifier:FSQIdentifier")
