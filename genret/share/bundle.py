"""A finished run as a bundle: a folder of safetensors, JSON and a model card, without traces of this machine's folders.

Pretrained weights that have a public name stay names; those that are a folder of this machine travel along.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import genret
from genret.api import Ui
from genret.catalog.place import place_of, run_id_of
from genret.catalog.store import Catalog
from genret.errors import GenretError
from genret.kit.files import read_json, write_json, write_text
from genret.recipe import plain_yaml
from genret.run import Run
from genret.search.thumbnails import Thumbnails
from genret.share.card import Licences, write_card
from genret.share.catalog import FOLDER, export_catalog, portable
from genret.share.contents import KEPT, STAGES
from genret.share.manifest import Manifest, write_manifest
from genret.toolbox.weights import PATTERNS

HERE = "genret-bundle:"
"""Stands in a bundle's files for the folder that the bundle is pulled into."""


class What(NamedTuple):
    """What goes into a bundle besides models, recipe and figures."""

    catalog: bool = True
    """Ids, identifiers, vectors, captions and metadata of the data set's images: without them nothing is found"""
    added: bool = False
    """Images that `genret index` added, too"""
    thumbnails: bool = False
    licences: Licences = Licences()


def write_bundle(run: Run, folder: Path, what: What, ui: Ui) -> Manifest:
    """Writes a finished run into a new folder."""
    folder.mkdir(parents=True)
    recipe = run.recipe.canonical()
    weights = dict(_local_weights(recipe))
    for number, path in enumerate(weights):
        _copy_models(path, folder / f"weights/{number}")
    tidy = _tidy(recipe, {name: f"{HERE}weights/{n}" for n, names in enumerate(weights.values()) for name in names})
    for stage in STAGES:
        if (run.folder / stage).is_dir():
            _copy_models(run.folder / stage, folder / stage)
            for file in (folder / stage).rglob("*.json"):
                _mapped(file, file, tidy)
    for name in KEPT:
        if (source := run.folder / f"{name}.json").is_file():
            _mapped(source, folder / source.name, tidy)
    write_text(folder / "recipe.yaml", plain_yaml.dump(_each(_plain_dataset(recipe), tidy)))
    if (lines := run.folder / "metrics.jsonl").is_file():
        shutil.copyfile(lines, folder / lines.name)
    for file in (run.folder / "evaluations").glob("*.safetensors"):
        (folder / "evaluations").mkdir(exist_ok=True)
        shutil.copyfile(file, folder / "evaluations" / file.name)
    images, left_out, hashes = None, 0, list[str]()
    with Catalog.open(place_of(run.folder), run_id=run_id_of(run.folder)) as catalog:
        added = catalog.splits().get(None, 0)
        if what.catalog:
            hashes = export_catalog(catalog, folder / FOLDER, what.added, lambda uri: portable(tidy(uri)))
            images, left_out = len(hashes), 0 if what.added else added
    if what.thumbnails:
        _copy_thumbnails(run.folder, folder, set(hashes), ui)
    write_card(run, folder, what.licences, images, what.thumbnails)
    if left_out:
        ui.note(f"{left_out} pictures that `genret index` added stay here; --added takes them along")
    return write_manifest(
        folder,
        genret=genret.__version__,
        name=run.folder.resolve().name,
        images=images,
        left_out=left_out,
        thumbnails=what.thumbnails,
    )


# ------------------------------------------------------------------------------------------------ weights
def _local_weights(recipe: dict[str, Any]) -> Iterator[tuple[Path, list[str]]]:
    """Folders and files of this machine that the recipe names as weights, each with its spellings."""
    found: dict[Path, list[str]] = {}
    for slot in ("encoder", "backbone", "rerank", "identifier", "retriever"):
        for value in _strings(recipe[slot]):
            path = Path(value).expanduser() if "/" in value or value.startswith(("~", ".")) else Path(value)
            weights = path.is_file() and path.suffix == ".safetensors"
            if weights or (path.is_dir() and any(path.rglob("*.safetensors"))):
                found.setdefault(path.resolve(), []).append(value)
    yield from found.items()


def _copy_models(source: Path, target: Path) -> None:
    """Copies a model's files: settings, vocabularies, weights. Skips those below the second level."""
    target.mkdir(parents=True)
    files = (
        [source]
        if source.is_file()
        else sorted({f for p in PATTERNS for f in (*source.glob(p), *source.glob(f"*/{p}"))})
    )
    for file in files:
        name = Path(file.name if source.is_file() else file.relative_to(source))
        (target / name).parent.mkdir(exist_ok=True)
        try:
            os.link(file.resolve(), target / name) if name.suffix == ".safetensors" else shutil.copyfile(
                file, target / name
            )
        except OSError:
            shutil.copyfile(file, target / name)


# ------------------------------------------------------------------------------------------------ this machine
def _tidy(recipe: dict[str, Any], weights: dict[str, str]) -> Callable[[str], str]:
    """Replaces folders of this machine in a text: weights by their place in the bundle, data by nothing."""
    roots = {str(Path(value).expanduser()) for value in _strings(recipe["dataset"]) if value.startswith(("/", "~"))}
    roots |= {os.path.realpath(root) for root in roots}
    home = str(Path.home())

    def tidy(text: str) -> str:
        if text in weights:
            return weights[text]
        for root in sorted(roots, key=len, reverse=True):
            text = text.replace(root.rstrip("/") + "/", "")
        return text.replace(home + "/", "~/") if len(home) > 1 else text

    return tidy


def _plain_dataset(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with the names of its data's folders and files alone."""

    def name(text: str) -> str:
        return Path(text).name if text.startswith(("/", "~")) else text

    return {**recipe, **{key: _each(recipe[key], name) for key in ("dataset", "pseudo_queries")}}


def _mapped(source: Path, target: Path, change: Callable[[str], str]) -> None:
    """Copies a JSON file; one in which nothing changes stays byte by byte."""
    try:
        value = read_json(source)
    except (OSError, ValueError) as error:
        raise GenretError(
            f"{source} is damaged ({error}); make it anew with: genret train --run DIR --resume"
        ) from None
    if (changed := _each(value, change)) != value:
        write_json(target, changed)
    elif source != target:
        shutil.copyfile(source, target)


def each_string(value: Any, change: Callable[[str], str]) -> Any:
    """Plain data with every string (no keys) replaced."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: each_string(inner, change) for key, inner in value.items()}
    return [each_string(inner, change) for inner in value] if isinstance(value, list) else value


_each = each_string


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


# ------------------------------------------------------------------------------------------------ pictures
def _copy_thumbnails(run: Path, folder: Path, hashes: set[str], ui: Ui) -> None:
    missing, thumbnails = 0, Thumbnails(run / "thumbnails")
    for sha256 in sorted(hashes):
        if (file := thumbnails.path(sha256)).is_file():
            copy = folder / file.relative_to(run)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        else:
            missing += 1
    if missing:
        ui.note(f"{missing} of {len(hashes)} images have no thumbnail in this run")
