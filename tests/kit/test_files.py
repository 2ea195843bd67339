"""Files appear whole or not at all, and never through a link that somebody has laid."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from genret.kit.files import append_row, read_json, replacing, write_json, write_text


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"größe": 1})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "größe": 1\n}'
    with pytest.raises(OSError, match="full"), replacing(tmp_path / "a.json") as partial:
        partial.write_text("half of it")
        raise OSError("full")
    assert (tmp_path / "a.json").read_text(encoding="utf-8").startswith("{")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_nothing_is_written_through_links_beside_it(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    out = tmp_path / "report.html"
    out.with_name(out.name + ".partial").symlink_to(precious)
    write_text(out, "page")
    assert precious.read_text() == "mine" and out.read_text() == "page" and not out.is_symlink()
    out.unlink()
    out.symlink_to(precious)
    write_text(out, "page")
    assert precious.read_text() == "mine", "the link itself is replaced"


def test_rights_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_json_that_is_no_document_is_an_ordinary_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")  # reading it would never end
    (tmp_path / "deep.json").write_text("[" * 200_000)
    (tmp_path / "large.json").write_text(json.dumps("x" * 100))
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    for name in ("pipe.json", "deep.json", "large.json", "bytes.json", "missing.json"):
        with pytest.raises((OSError, ValueError)):
            read_json(tmp_path / name, max_bytes=300_000 if name == "deep.json" else 50)


def test_an_epoch_has_one_row_however_often_it_was_trained(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    for row in (
        {"stage": "heads", "epoch": 0, "loss": 3.0},
        {"stage": "generator", "epoch": 0, "loss": 2.0},
        {"stage": "generator", "epoch": 1, "loss": 1.5},
        {"stage": "generator", "event": "resumed", "epoch": 1},
        {"stage": "generator", "epoch": 1, "loss": 1.0},
        {"stage": "generator", "epoch": 2, "loss": 0.5},
        {"stage": "note"},
        {"stage": "note"},
    ):
        append_row(log, row)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(row["stage"], row.get("epoch"), row.get("loss")) for row in rows] == [
        ("heads", 0, 3.0), ("generator", 0, 2.0), ("generator", 1, None), ("generator", 1, 1.0), ("generator", 2, 0.5),
        ("note", None, None), ("note", None, None),
    ]  # fmt: skip
