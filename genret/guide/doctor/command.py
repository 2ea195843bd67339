"""`genret doctor`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genret.cli.options import JsonOption
from genret.cli.state import State, state_of
from genret.errors import UsageError

if TYPE_CHECKING:
    from genret.api import Screen


def add(cli: typer.Typer) -> None:
    cli.command("doctor", short_help="Show versions, caches, runs, what is broken, and what helps.")(doctor)


def doctor(
    context: typer.Context,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if anything is broken.")] = False,
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove caches that are made again when needed; never runs or catalogs.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --clean: do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what genret runs on, what lies in its home folder, what is broken there, and what helps.

    It changes nothing, except by --clean, which first says what it would remove and how many bytes that frees.

    \b
    Examples:
      genret doctor
      genret doctor --check --json
      genret doctor --clean
    """
    state = state_of(context)
    with state.ui(as_json) as ui:
        if clean:
            _clean(state, ui, yes)
            return
        found = diagnosis(state)
        if as_json:
            ui.document(found)
        else:
            for line in in_words(found):
                ui.result(line)
        if check and found["faults"]:
            raise typer.Exit(1)


def diagnosis(state: State) -> dict[str, Any]:
    """All that is found, as plain data."""
    from genret.guide.doctor.caches import caches
    from genret.guide.doctor.faults import faults_of
    from genret.guide.doctor.machine import extras_of, machine, weights
    from genret.guide.doctor.runs import Fault, look_at

    settings, plugins = state.settings, state.plugins
    facts, wrong = machine(settings)
    folders = sorted(path for path in settings.runs_dir.glob("*") if path.is_dir()) if settings.home.is_dir() else []
    runs = [look_at(folder, plugins.registries) for folder in folders]
    faults = [Fault(wrong, "export GENRET_DEVICE=auto")] if wrong else []
    faults += faults_of(settings, plugins) + [fault for run in runs for fault in run.faults]
    return {
        "machine": facts,
        "extras": [extra._asdict() for extra in extras_of("genret")],
        "weights": weights(plugins),
        "home": str(settings.home),
        "caches": [cache._asdict() | {"path": str(cache.path)} for cache in caches(settings)],
        "runs": [{key: value for key, value in run._asdict().items() if key != "faults"} for run in runs],
        "faults": [fault._asdict() for fault in faults],
    }


def in_words(found: dict[str, Any]) -> Iterator[str]:
    """The same for people: a block for each part."""
    facts, weights = found["machine"], found["weights"]
    yield f"Versions  Python {facts['python']}, " + ", ".join(f"{name} {at}" for name, at in facts["packages"].items())
    asked = f" (asked for: {facts['wanted_device']})"
    yield f"Device    {facts['device']}{asked}; {facts['processor']}; {facts['platform']}"
    sleeps = facts["waiting"].get("OMP_WAIT_POLICY", "").upper() == "PASSIVE"
    policy = ", ".join(f"{name}={value}" for name, value in facts["waiting"].items())
    waits = "waiting threads sleep" if sleeps else "waiting threads follow your settings"
    yield f"Threads   {facts['threads']} on {facts['cores']} cores; {waits} ({policy})"
    yield from _extras("Extras   ", "", found["extras"])
    for package in weights["packages"].values():
        if package["source"] == "built in":
            continue
        yield f"Weights   {package['source']}: {', '.join(package['weights'])}"
        yield from _extras("         ", "with ", package["extras"])
    hub = weights["hub"]
    held = ", ".join(f"{name} ({in_bytes(size)})" for name, size in hub["repositories"].items()) or "nothing"
    given = "".join(f", {name}={value}" for name, value in hub["settings"].items())
    yield f"Hub       {'offline' if hub['offline'] else 'online'}{given}; in {hub['folder']}: {held}"
    yield f"\nHome      {found['home']}"
    for cache in found["caches"]:
        if cache["files"]:
            yield f"  {cache['name']:<16} {in_bytes(cache['bytes']):>10}  {cache['files']:>7,} files  {cache['path']}"
    if not any(cache["files"] for cache in found["caches"]):
        yield "  empty so far; start with: genret demo"
    yield from _runs(found["runs"], facts["packages"].get("genret"))
    yield "\nNothing is broken." if not found["faults"] else f"\nFaults    {len(found['faults'])}"
    for fault in found["faults"]:
        yield f"  - {fault['what']}\n    Cure: {fault['cure']}"


def _extras(heading: str, words: str, extras: Sequence[dict[str, Any]]) -> Iterator[str]:
    there = [extra["name"] for extra in extras if not extra["missing"]]
    if there:
        yield f"{heading} {words}{', '.join(there)}"
    for extra in extras:
        if extra["missing"]:
            yield f"{heading} without {extra['name']} ({', '.join(extra['missing'])}): {extra['install']}"
        heading = " " * len(heading)


def _runs(runs: Sequence[dict[str, Any]], now: str | None) -> Iterator[str]:
    if runs:
        yield f"\nRuns      {len(runs)}"
    for run in runs:
        images = "" if run["images"] is None else f", {run['images']:,} images"
        other = f", made by genret {run['genret']}" if run["genret"] not in (None, now) else ""
        more = f": genret train --run {run['name']} --resume" if run["state"] == "unfinished" else ""
        yield f"  {run['name']:<24} {run['state']}{images}{other}{more}"


def in_bytes(number: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number} B"


def _clean(state: State, ui: Screen, yes: bool) -> None:
    from genret.guide.doctor.caches import freed, removable, remove, size_of
    from genret.guide.doctor.runs import is_training, unfinished

    for run in unfinished(state.settings.runs_dir):
        if is_training(run):
            raise UsageError(f"{run} is being trained at the moment; clean when it is done")
    found = removable(state.settings)
    total = freed(path for one in found for path in one.paths)
    listed: list[dict[str, Any]] = [
        {
            "what": one.what,
            "files": size_of(one.paths).files,
            "bytes": freed(one.paths),
            "paths": [*map(str, one.paths)],
        }
        for one in found
    ]
    if not found:
        ui.result("There is nothing to remove.")
    elif not ui.json or not yes:
        for one in listed:
            ui.note(f"{in_bytes(one['bytes']):>10}  {one['files']:>7,} files  {one['what']}")
        ui.note(f"{in_bytes(total):>10}  in all; runs, catalogs and thumbnails stay")
    if found and not yes:
        if ui.json or not sys.stdin.isatty():
            raise UsageError("nothing was removed; add --yes to remove it without being asked")
        if not typer.confirm("Remove these?", err=True):
            ui.note("Nothing was removed.")
            return
    gone = remove(found)
    if ui.json:
        ui.document({"removed": listed, "bytes": gone})
    elif found:
        ui.result(f"{in_bytes(gone)} are free again.")
