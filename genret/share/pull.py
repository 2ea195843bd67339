"""From a bundle of somebody else to a run of this home: everything is checked before it is taken, all or nothing."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from genret.api import Ui
from genret.errors import GenretError, UsageError
from genret.kit.files import read_json, write_json, write_text
from genret.recipe import plain_yaml
from genret.settings import Settings
from genret.share.bundle import HERE, each_string
from genret.share.catalog import FOLDER, import_catalog
from genret.share.contents import MANIFEST, STAGES, check_content, check_name
from genret.share.hub import PREFIX, HubSource
from genret.share.manifest import Manifest, digest, read_manifest
from genret.share.sources import FolderSource, Source, TarSource, ZipSource, is_archive

NEEDED = ("recipe.yaml", "summary.json")
ORIGIN = "pulled.json"
"""Where a pulled run came from."""


class Pulled(NamedTuple):
    run: Path
    images: int
    thumbnails: bool
    source: str
    revision: str | None

    def as_json(self) -> dict[str, Any]:
        return {**self._asdict(), "run": str(self.run)}


def pull(source: str, name: str | None, settings: Settings, ui: Ui) -> Pulled:
    """Pulls a folder, an archive or `hub:owner/name[@revision]` into `<home>/runs/<name>`."""
    opened = open_source(source)
    name = name or _name_of(source)
    if not re.fullmatch(r"\w[\w.-]{0,99}", name):
        raise UsageError(f"{name!r} is no name for a run: letters, digits, '.', '_' and '-'; give another with --run")
    target = settings.runs_dir / name
    if target.exists():
        raise UsageError(f"there is a run {target} already; give another name with --run")
    return pull_into(opened, target, settings, ui)


def open_source(source: str) -> Source:
    if source.startswith(PREFIX):
        return HubSource(source)
    path = Path(source).expanduser()
    if path.is_dir():
        return FolderSource(path)
    if not path.is_file():
        raise UsageError(f"there is no folder or archive {source}; or name a repository: hub:owner/name")
    if not is_archive(path.name):
        raise UsageError(f"{source} is no archive that genret reads: .tar.gz, .tgz, .tar or .zip")
    return ZipSource(path) if path.suffix.lower() == ".zip" else TarSource(path)


def pull_into(source: Source, target: Path, settings: Settings, ui: Ui) -> Pulled:
    """Checks a bundle and makes `target`, a new run directory, of it."""
    with _partial(settings) as partial:
        with ui.progress("pulling", None):
            found = checked_copy(source, partial)
        images = _finish(partial, target)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.rename(target)
        except OSError as error:
            raise GenretError(f"cannot make {target}: {error.strerror}; nothing was pulled") from None
    return Pulled(target, images, found.thumbnails, source.name, source.revision)


def checked_copy(source: Source, folder: Path) -> Manifest:
    """Copies all files of a bundle into a new folder; raises for whatever is missing, foreign or changed."""
    there = source.listing()
    if MANIFEST not in there:
        raise GenretError(f"{source.name} is no bundle of genret: it has no {MANIFEST}; make one with: genret push")
    source.fetch({MANIFEST: there.pop(MANIFEST)}, folder)
    found = read_manifest(folder / MANIFEST, source.name)
    for name in found.files:
        check_name(name)
    if missing := sorted(set(found.files) - set(there)) or [name for name in NEEDED if name not in there]:
        raise GenretError(f"{source.name}: {missing[0]} is missing; push the run anew")
    if foreign := sorted(set(there) - set(found.files)):
        raise GenretError(f"{source.name}: {foreign[0]} is not in its list of files; take it out, or push the run anew")
    for name, listed in found.files.items():
        if listed.bytes != there[name]:
            raise GenretError(
                f"{source.name}: {name} has {there[name]:,} bytes instead of {listed.bytes:,}: it was changed"
            )
    source.fetch({name: listed.bytes for name, listed in found.files.items()}, folder)
    for name, listed in found.files.items():
        if digest(folder / name).sha256 != listed.sha256:
            raise GenretError(f"{source.name}: {name} was changed or damaged: its checksum is another")
        check_content(folder / name, name)
    write_json(folder / ORIGIN, {"source": source.name, "revision": source.revision, "name": found.name})
    return found


def _finish(folder: Path, target: Path) -> int:
    """Names the places of this machine in the files, and makes the catalog → its number of images."""
    where = str(target.absolute()) + "/"

    def placed(text: str) -> str:
        return where + text.removeprefix(HERE) if text.startswith(HERE) else text

    recipe = folder / "recipe.yaml"
    try:
        value = plain_yaml.parse(recipe.read_text(encoding="utf-8")).value
    except UsageError as error:
        raise GenretError(f"recipe.yaml is no recipe ({error})") from None
    write_text(recipe, plain_yaml.dump(each_string(value, placed)))
    for stage in STAGES:
        for file in (folder / stage).rglob("*.json"):
            if (changed := each_string(before := read_json(file), placed)) != before:
                write_json(file, changed)
    images = import_catalog(folder / FOLDER, folder)
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    (folder / MANIFEST).unlink()
    return images


@contextmanager
def _partial(settings: Settings) -> Iterator[Path]:
    """A new folder beside the runs, which is gone at the end unless it was moved to its place."""
    partial = settings.home / "partial" / secrets.token_hex(8)
    try:
        partial.mkdir(parents=True)
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _name_of(source: str) -> str:
    """`hub:owner/avg@main`, `bundles/avg.tar.gz`, `bundles/avg/` → "avg"."""
    last = source.removeprefix(PREFIX).partition("@")[0] if source.startswith(PREFIX) else str(Path(source))
    last = re.split(r"[/\\]", last.rstrip("/"))[-1]
    last = re.sub(r"\.(tar\.gz|tgz|tar|zip)$", "", last, flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]+", "-", last).strip("-.") or "pulled"
