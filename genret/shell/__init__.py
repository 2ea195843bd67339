"""What stands around the core and comes in by a hook: the terminal, what is said and recorded of a run, old catalogs.

A plugin of genret. The core asks for each of these functions by its name.
"""

from __future__ import annotations

from genret import hookimpl
from genret.plugin.hookspecs import RegisterFunction


@hookimpl
def register_functions(register: RegisterFunction) -> None:
    register("terminal", "genret.shell.ui:Ui")
    """(json: bool) → Screen: shows progress, notes and results."""
    register("evaluation", "genret.shell.evaluation:tables")
    """(run, evaluation) → tables that rich can print"""
    register("compare_size", "genret.shell.evaluation:compare_size")
    """(run, split, number of its images, ui): warns if it had more of them when training measured it."""
    register("next_steps", "genret.shell.next_steps:next_steps")
    """(run, searched split, evaluation, seconds) → the last words of a training"""
    register("environment", "genret.shell.environment:describe")
    """(device, seed) → versions and machine, for `environment.json`"""
    register("peak_memory_mb", "genret.shell.environment:peak_memory_mb")
    """() → the most memory that this process used"""
    register("provenance", "genret.shell.provenance:provenance")
    """(recipe, registries) → which plugin each component came from, for `environment.json`"""
    register("remember", "genret.shell.provenance:remember_run")
    """(run directory, registries): errors about missing components of this run name their plugin."""
    register("compare_code", "genret.shell.provenance:compare_code")
    """(run directory, code by component): warns if a plugin's code has changed since the run was made."""
    register("companions", "genret.shell.provenance:remember_companions")
    """(registries): errors about missing components name the plugins of genret's own repository."""
    register("watch", "genret.shell.watch:watch")
    """(component, name, origin) → the component of a plugin, checked at every call"""
    register("upgrade", "genret.shell.migrate:upgrade")
    """(database): changes a catalog of an older genret to the present schema."""
