"""The runs of the home folder: finished, unfinished, damaged, of other versions. Reads only; no model is loaded."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from genret.catalog.place import place_of, run_id_of
from genret.catalog.store import Catalog
from genret.errors import GenretError, one_line
from genret.folders import FINISHED, is_finished, read_summary
from genret.kit.files import read_json
from genret.plugin.registry import Registries
from genret.recipe.load import load_recipe
from genret.recipe.schema import Recipe

MOST_CHECKED = 2**30
"""Catalogs above this are opened, but not read page by page, in bytes."""


class Fault(NamedTuple):
    what: str
    """What is broken, with its name."""
    cure: str
    """What to do."""


class RunState(NamedTuple):
    name: str
    state: str
    """finished, unfinished, training or damaged"""
    genret: str | None
    """The version that made it, as far as it is known."""
    images: int | None
    faults: list[Fault]


def look_at(run: Path, registries: Registries) -> RunState:
    """A run and what is wrong with it."""
    try:
        names = {path.name for path in run.iterdir()}
    except OSError as error:
        cure = f"give yourself the right to read it: chmod -R u+rwX {run}"
        return RunState(
            run.name, "damaged", None, None, [Fault(f"the run folder {run} cannot be read ({error})", cure)]
        )
    if "recipe.yaml" not in names:
        what = f"{run} holds no recipe.yaml, so it is no run"
        return RunState(
            run.name, "damaged", None, None, [Fault(what, "move it out of the folder of runs, or remove it")]
        )
    faults = list[Fault]()
    recipe = _recipe(run, registries, faults)
    made_by, images = _version(run), None
    if FINISHED not in names:
        state = "training" if is_training(run) else "unfinished"
        return RunState(run.name, "damaged" if faults else state, made_by, None, faults)
    try:
        read_summary(run)
    except GenretError as error:
        faults.append(Fault(str(error), f"write it anew: rm {run / FINISHED}, then genret train --run {run} --resume"))
    if recipe is None or _stages(run, recipe, faults):
        images = _catalog(run, faults)
    damaged = "damaged" if faults else "finished"
    if recipe is not None:
        faults += _moved(run, recipe)
    return RunState(run.name, damaged, made_by, images, faults)


def is_training(run: Path) -> bool:
    """Whether another process trains this run at the moment."""
    lock = run / ".train.lock"
    if not lock.is_file():
        return False
    try:
        FileLock(lock).acquire(timeout=0).lock.release()
    except Timeout:
        return True
    except OSError:  # a folder that may only be read: nobody can train there
        return False
    return False


def unfinished(runs: Path) -> Iterator[Path]:
    """The runs that `--resume` can continue."""
    for file in sorted(runs.glob("*/recipe.yaml")):
        if not is_finished(file.parent):
            yield file.parent


def _recipe(run: Path, registries: Registries, faults: list[Fault]) -> Recipe | None:
    try:
        registries.function.get("remember")(run, registries)
        return load_recipe([run / "recipe.yaml"], [], registries)
    except GenretError as error:
        said = one_line(error, 300)
        cure = (
            "install what it lacks (genret plugins), or the genret that made it; its environment.json has the versions"
        )
        faults.append(Fault(f"the recipe of {run} cannot be read: {said}", cure))
    except OSError as error:
        faults.append(
            Fault(f"the recipe of {run} cannot be read ({error})", f"change its rights: chmod -R u+rwX {run}")
        )
    return None


def _version(run: Path) -> str | None:
    try:
        return str(read_json(run / "environment.json")["packages"]["genret"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _catalog(run: Path, faults: list[Fault]) -> int | None:
    """The number of its images."""
    cure = f"put a copy back, or make it anew: rm {run / FINISHED}, then genret train --run {run} --resume"
    try:
        place = place_of(run)
        if isinstance(place, Path) and place.is_file() and place.stat().st_size <= MOST_CHECKED:
            _whole(place)
        with Catalog.open(place, run_id_of(run)) as catalog:
            return sum(catalog.splits().values())
    except GenretError as error:
        faults.append(Fault(f"the catalog of {run} cannot be used: {one_line(error, 300)}", cure))
    except (sqlite3.Error, OSError) as error:
        faults.append(Fault(f"the catalog of {run} is broken ({one_line(error, 300)})", cure))
    return None


def _whole(file: Path) -> None:
    """Reads a SQLite file page by page. Raises `sqlite3.DatabaseError` with the first fault found."""
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
        ((said,),) = connection.execute("PRAGMA quick_check(1)").fetchall()
        if said != "ok":
            raise sqlite3.DatabaseError(said)


def _stages(run: Path, recipe: Recipe, faults: list[Fault]) -> bool:
    """The trained parts: there, and each file as long as it says of itself. Returns whether all are there: without
    one, the catalog would seem to belong to another run."""
    cure = f"copy it anew from the stored stages: rm {run / FINISHED}, then genret train --run {run} --resume"
    needed = [
        "encoder",
        *(["identifier"] if recipe.has_identifiers else []),
        *(["generator"] if recipe.backbone else []),
    ]
    missing = [stage for stage in needed if not (run / stage).is_dir()]
    faults += [Fault(f"{run} lacks its part '{stage}'", cure) for stage in missing]
    for stage in (*needed, "retriever", "towers"):
        for file in sorted((run / stage).rglob("*")):
            if said := _damage(file):
                faults.append(Fault(f"{file} is damaged ({said})", cure))
    return not missing


def _damage(file: Path) -> str | None:
    try:
        if file.suffix == ".json":
            read_json(file)
        elif file.suffix == ".safetensors":
            with safe_open(file, framework="np"):
                return None
    except (SafetensorError, OSError, ValueError) as error:
        return one_line(error, 200)
    return None


def _moved(run: Path, recipe: Recipe) -> Iterator[Fault]:
    """Folders and files of this machine that the recipe names as its data, and that are gone."""
    for key, slot in (("dataset", recipe.dataset), ("texts", recipe.texts)):
        for option, value in (slot.options.model_dump(mode="json") if slot is not None else {}).items():
            if isinstance(value, str) and value.startswith(("/", "~/")) and not Path(value).expanduser().exists():
                yield Fault(
                    f"{key}.{option} of {run} is {value}, which is not there any more",
                    "searches go on without it; before the run is evaluated or trained anew, bring it back or link it: "
                    f"ln -s NEW_PLACE {value}",
                )
