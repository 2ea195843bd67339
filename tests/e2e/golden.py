"""What every recipe made when its golden file was written: losses, identifiers, figures, an answer.

    GENRET_GOLDEN=write pytest tests/e2e/test_every_recipe.py    writes the files anew, after a change that is meant

A change that only moves code must leave every digit as it is. Digits depend on the processor and on torch, so they are
compared exactly where both are the file's own; elsewhere the course of the training has to be the same.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).parents[1] / "golden"
CLOSE = 0.15
"""Relative distance of losses on other machines: whole trainings drift apart, wrong ones by more."""
VOLATILE = {"elapsed_ms", "seconds", "uri", "other_uri"}


def check(name: str, run: Path, evaluation: dict[str, Any], search: dict[str, Any]) -> None:
    """Holds a finished run against `tests/golden/NAME.json`."""
    found = json.loads(
        json.dumps({**_machine(), **_facts(run), "evaluation": _steady(evaluation), "search": _steady(search)})
    )
    path = FOLDER / f"{name}.json"
    if os.environ.get("GENRET_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
        return
    golden = json.loads(path.read_text(encoding="utf-8"))
    if found["machine"] == golden["machine"]:
        found["evaluation"] = {key: found["evaluation"].get(key) for key in golden["evaluation"]}  # more may be told
        for part in golden:
            assert found[part] == golden[part], f"{name}: {part} differs from tests/golden/{path.name}"
        return
    assert _shape(golden["evaluation"]).items() <= _shape(found["evaluation"]).items()
    assert found["search"].keys() == golden["search"].keys()
    assert found["identifiers"].keys() == golden["identifiers"].keys()
    for now, then in zip(found["losses"], golden["losses"], strict=True):
        assert now.keys() == then.keys() and now["stage"] == then["stage"]
        if math.isfinite(then.get("loss", math.nan)):
            assert abs(now["loss"] - then["loss"]) <= CLOSE * abs(then["loss"]) + 0.05, f"{name}: {now} was {then}"


def _machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else []
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    wide = sorted(flag for flag in flags if flag.startswith(("avx", "amx")))
    return {"machine": [model, " ".join(wide), torch.__version__]}


def _facts(run: Path) -> dict[str, Any]:
    log = run / "metrics.jsonl"
    losses = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    losses = [row for row in losses if row["stage"] == "generator"]  # earlier stages may be reused from other recipes
    with closing(sqlite3.connect(run / "catalog.sqlite")) as catalog:
        rows = catalog.execute(
            "select image_id, hex(identifier) from images left join identifiers on id = image_key order by 1, 2"
        ).fetchall()
    identifiers: dict[str, list[str]] = {}
    for image_id, packed in rows:
        identifiers.setdefault(image_id, []).extend([packed] if packed else [])
    return {"losses": [_steady(row) for row in losses], "identifiers": identifiers}


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(inner) for key, inner in value.items() if key not in VOLATILE}
    return [_steady(inner) for inner in value] if isinstance(value, list) else value


def _shape(value: Any) -> Any:
    """Keys and kinds, without the figures."""
    if isinstance(value, dict):
        return {key: _shape(inner) for key, inner in value.items()}
    return type(value).__name__ if not isinstance(value, int | float) else "number"
