"""The list of a bundle's files, `genret.json`: sizes and checksums, and what was left out."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genret.errors import GenretError, one_line
from genret.kit.files import read_json, write_json
from genret.share.contents import MANIFEST, MOST_JSON, check_content, check_name

FORMAT = 1


class Listed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    format: int
    genret: str = Field(max_length=50)
    name: str = Field(max_length=200)
    """The run's name where it was pushed."""
    images: int | None = Field(ge=0)
    """Number of images in the catalog; None: pushed without."""
    left_out: int = Field(0, ge=0)
    """Number of images that `genret index` had added, and that stayed at home."""
    thumbnails: bool = False
    files: dict[str, Listed]


class Digest(NamedTuple):
    bytes: int
    sha256: str


def digest(path: Path) -> Digest:
    with path.open("rb") as stream:
        return Digest(path.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest())


def write_manifest(folder: Path, **facts: Any) -> Manifest:
    """Lists all files of a bundle's folder."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    for name in files:
        check_name(name)
        check_content(folder / name, name)
    listed = {name: Listed(**digest(folder / name)._asdict()) for name in files}
    made = Manifest(format=FORMAT, files=listed, **facts)
    write_json(folder / MANIFEST, made.model_dump())
    return made


def read_manifest(path: Path, source: str) -> Manifest:
    try:
        found = Manifest(**read_json(path, MOST_JSON))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise GenretError(f"{source}: its {MANIFEST} is damaged ({where}: {first['msg']})") from None
    except (OSError, ValueError, TypeError) as error:
        raise GenretError(f"{source}: its {MANIFEST} is damaged ({one_line(error)})") from None
    if found.format != FORMAT:
        raise GenretError(f"{source} was made by another version of genret ({found.genret}); upgrade genret to pull it")
    return found
