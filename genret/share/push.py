"""A finished run to a folder, an archive or the hub; nothing half is left behind."""

from __future__ import annotations

import secrets
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from genret.api import Ui
from genret.errors import GenretError, UsageError
from genret.kit.files import replacing
from genret.run import Run
from genret.share.bundle import What, write_bundle
from genret.share.contents import MANIFEST
from genret.share.hub import PREFIX, parse_address, push_to_hub
from genret.share.manifest import Manifest
from genret.share.sources import ARCHIVES, is_archive


class Pushed(NamedTuple):
    target: str
    """For the hub with the commit"""
    files: int
    bytes: int
    images: int | None
    left_out: int

    def as_json(self) -> dict[str, Any]:
        return self._asdict()


def push(run: Run, target: str, what: What, ui: Ui, public: bool = False) -> Pushed:
    """Writes a run's bundle to `target`: `hub:owner/name`, a file that ends like an archive, or a new folder."""
    if what.thumbnails and not what.catalog:
        raise UsageError("--thumbnails needs the catalog, which says whose they are; leave --no-catalog out")
    if target.startswith(PREFIX):
        parse_address(target)
        with tempfile.TemporaryDirectory(prefix="genret-push-") as scratch, ui.progress("pushing", None):
            made = write_bundle(run, Path(scratch) / "bundle", what, ui)
            return _told(push_to_hub(Path(scratch) / "bundle", made, target, public), made)
    path = Path(target).expanduser()
    if not path.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {path.parent} for {path.name}")
    if path.is_dir() and (is_archive(path.name) or any(path.iterdir())):
        raise UsageError(f"{target} is in use already; name a new folder or file")
    if not path.is_dir() and path.exists():
        raise UsageError(f"{target} exists already; name another, or one that ends in {', '.join(ARCHIVES)}")
    partial = path.absolute().with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        with ui.progress("pushing", None):
            made = write_bundle(run, partial, what, ui)
            if is_archive(path.name):
                _pack(partial, path, made)
            else:
                partial.replace(path)
    except OSError as error:
        raise GenretError(f"cannot write {target}: {error.strerror or error}; nothing was pushed") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _told(str(path), made)


def _pack(folder: Path, target: Path, made: Manifest) -> None:
    """One archive with the same bytes for the same bundle: no times, no owners."""
    with replacing(target) as partial:
        if target.suffix.lower() == ".zip":
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as packed:
                for name in (MANIFEST, *made.files):
                    entry = zipfile.ZipInfo(name)
                    entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                    with (folder / name).open("rb") as source, packed.open(entry, "w", force_zip64=True) as out:
                        shutil.copyfileobj(source, out, 2**20)
            return
        mode: Any = "w" if target.suffix.lower() == ".tar" else "w:gz"
        with tarfile.open(partial, mode) as archive:
            for name in (MANIFEST, *made.files):
                info = tarfile.TarInfo(name)
                info.size, info.mode = (folder / name).stat().st_size, 0o644
                with (folder / name).open("rb") as source:
                    archive.addfile(info, source)


def _told(target: str, made: Manifest) -> Pushed:
    total = sum(one.bytes for one in made.files.values())
    return Pushed(target, len(made.files) + 1, total, made.images, made.left_out)
