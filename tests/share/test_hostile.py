"""Bundles of ill will, and damaged ones: refused by the name of the file, and nothing of them is written."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genret.share.catalog import portable
from genret.share.contents import MANIFEST

Refused = Callable[..., None]


@pytest.fixture
def refused(tiny: Any, failed: Callable[..., None], tmp_path: Path) -> Refused:
    """The bundle cannot be pulled, for a reason that is said, and the home stays empty."""

    def check(source: Path, *said: str) -> None:
        home = tmp_path / "empty-home"
        failed(tiny.genret("pull", source, home=home), 1, *said)
        assert not list(home.glob("runs/*")) and not list(home.glob("partial/*"))

    return check


@pytest.fixture
def mine(bundle: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(bundle, tmp_path / "mine"))


def relist(folder: Path) -> None:
    """As an attacker would: the list of files fits what was changed."""
    listed = json.loads((folder / MANIFEST).read_text())
    listed["files"] = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in folder.rglob("*")
        if path.is_file() and (path.name != MANIFEST or path.parent != folder)
    }
    (folder / MANIFEST).write_text(json.dumps(listed))


def test_a_changed_byte(mine: Path, refused: Refused) -> None:
    file = mine / "generator" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    refused(mine, "generator/model.safetensors", "checksum")


def test_a_file_that_is_cut_or_missing_or_more(mine: Path, refused: Refused) -> None:
    file = mine / "encoder" / "heads.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    refused(mine, "encoder/heads.safetensors", "bytes")
    file.unlink()
    refused(mine, "encoder/heads.safetensors is missing")
    file.write_bytes(data)
    (mine / "encoder" / "more.json").write_text("{}")
    refused(mine, "encoder/more.json is not in its list")


@pytest.mark.parametrize("name", ["model.pkl", "generator/pytorch_model.bin", "weights/0/x.pt", "encoder/a.npz"])
def test_pickles(mine: Path, refused: Refused, name: str) -> None:
    (mine / name).write_bytes(pickle.dumps({"a": 1}))
    relist(mine)
    refused(mine, name, "pickle")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("generator/model.safetensors", pickle.dumps([1])),
        ("generator/spiece.model", pickle.dumps([1])),
        ("generator/vocab.txt", b"PK\x03\x04 a zip, as torch writes them"),
        ("encoder/heads.json", b"{'a': 1}"),
        ("metrics.jsonl", b"[" * 100_000),
        ("results.png", b"<svg onload='x'>"),
    ],
)
def test_files_that_are_not_what_their_names_say(mine: Path, refused: Refused, name: str, data: bytes) -> None:
    (mine / name).write_bytes(data)
    relist(mine)
    refused(mine, f"{name} is not what its name says")


@pytest.mark.parametrize(
    "name",
    ["generator/modeling.py", "catalog.url", "catalog.sqlite", ".train.lock", "trie/x.safetensors", "plugins/a.py"],
)
def test_files_that_no_bundle_has(mine: Path, refused: Refused, name: str) -> None:
    (mine / name).parent.mkdir(exist_ok=True)
    (mine / name).write_text("x")
    relist(mine)
    refused(mine, name)


def test_links_and_pipes(mine: Path, refused: Refused) -> None:
    file = mine / "summary.json"
    file.rename(mine / ".." / "summary.json")
    file.symlink_to(mine.parent / "summary.json")
    refused(mine, "summary.json is a link")
    file.unlink()
    import os

    os.mkfifo(file)
    refused(mine, "summary.json is a device or a pipe")


@pytest.mark.parametrize(
    "name", ["../out.json", "/tmp/out.json", "encoder/../../out.json", "a\\..\\b.json", "./recipe.yaml"]
)
@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_paths_that_lead_out(bundle: Path, tmp_path: Path, refused: Refused, name: str, kind: str) -> None:
    file = tmp_path / f"evil.{kind}"
    pack(bundle, file, {name: b"{}"})
    refused(file, repr(name), "outside")
    assert not (tmp_path / "out.json").exists()


def test_a_list_that_leads_out(mine: Path, refused: Refused) -> None:
    listed = json.loads((mine / MANIFEST).read_text())
    listed["files"]["../../out.json"] = {"bytes": 2, "sha256": "0" * 64}
    (mine / MANIFEST).write_text(json.dumps(listed))
    refused(mine, "'../../out.json'", "outside")
    listed["files"] = {"recipe.yaml": {"bytes": -1, "sha256": "x"}}
    (mine / MANIFEST).write_text(json.dumps(listed))
    refused(mine, f"{MANIFEST} is damaged", "files.recipe.yaml")
    (mine / MANIFEST).write_text("[" * 100_000)
    refused(mine, f"{MANIFEST} is damaged")
    (mine / MANIFEST).unlink()
    refused(mine, f"no {MANIFEST}")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_archives(tmp_path: Path, refused: Refused, kind: bytes) -> None:
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("summary.json")
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    refused(tmp_path / "evil.tar.gz", "summary.json is a ")


def test_links_in_zips_and_names_twice(bundle: Path, tmp_path: Path, refused: Refused) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        entry = zipfile.ZipInfo("summary.json")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    refused(tmp_path / "evil.zip", "summary.json is a link")
    pack(bundle, tmp_path / "twice.tar.gz", {"summary.json": b"{}"})
    refused(tmp_path / "twice.tar.gz", "summary.json is there twice")


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_bombs(tmp_path: Path, refused: Refused, kind: str) -> None:
    """50 MB of zeros that are packed to some kilobytes."""
    file = tmp_path / f"bomb.{kind}"
    pack(None, file, {f"encoder/{n}.safetensors": bytes(10**7) for n in range(5)})
    assert file.stat().st_size < 200_000
    refused(file, "unpacks to more than")


def test_sizes_that_lie(tmp_path: Path, refused: Refused) -> None:
    with tarfile.open(tmp_path / "huge.tar", "w") as archive:
        entry = tarfile.TarInfo("encoder/a.safetensors")
        entry.size = 2**40
        archive.fileobj.write(entry.tobuf())
    refused(tmp_path / "huge.tar", "encoder/a.safetensors has 1,099,511,627,776 bytes")
    with tarfile.open(tmp_path / "long.tar", "w") as archive:
        entry = tarfile.TarInfo("././@LongLink")
        entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 2**32
        archive.fileobj.write(entry.tobuf())
    refused(tmp_path / "long.tar", "a header of this archive announces")
    file = tmp_path / "lies.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, b" " * 5_000_000)
    data = bytearray(file.read_bytes())  # the directory announces 5 bytes
    place = data.rindex(b"PK\x01\x02")
    data[place + 24 : place + 28] = struct.pack("<I", 5)
    file.write_bytes(data)
    refused(file)


def test_a_catalog_of_ill_will(mine: Path, refused: Refused, tiny: Any, tmp_path: Path) -> None:
    file = mine / "catalog" / "000000.json"
    good = json.loads(file.read_text())
    for change, said in (
        ({"sha256": "../../../x"}, "sha256"),
        ({"captions": 5}, ""),
        ({"metadata": [1]}, ""),
    ):
        bad = json.loads(json.dumps(good))
        bad["images"][0] |= change
        file.write_text(json.dumps(bad))
        relist(mine)
        refused(mine, "catalog/000000.json", said)
    good["images"][0]["uri"] = "/etc/passwd"
    file.write_text(json.dumps(good))
    relist(mine)
    home = tmp_path / "pulled"
    assert tiny.genret("pull", mine, home=home).code == 0
    found = tiny.genret("search", "a red square", "-k", 8, "--json", home=home).document
    assert "passwd" in {hit["uri"] for hit in found["hits"]}, "the folder is gone"


def test_locations_are_portable() -> None:
    for uri in ("/home/me/x.png", "~/x.png", "C:\\Users\\me\\x.png", "..\\x.png", "../../x.png", "file:///home/x.png"):
        assert portable(uri) == "x.png"
    for uri in ("a/x.png", "emoji.tar:1f431.png", "x.png"):
        assert portable(uri) == uri


def test_a_recipe_that_is_none(mine: Path, refused: Refused) -> None:
    (mine / "recipe.yaml").write_text("a: !!python/object/apply:os.system ['touch /tmp/x']\n")
    relist(mine)
    refused(mine, "recipe.yaml is no recipe")


def pack(folder: Path | None, target: Path, more: dict[str, bytes]) -> None:
    files = (
        [(p.relative_to(folder).as_posix(), p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()]
        if folder
        else []
    )
    files += more.items()
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files:
                archive.writestr(name, data)
        return
    with tarfile.open(target, "w:gz") as archive:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
