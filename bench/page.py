"""Inserts results into docs/performance.md: `python -m bench.page` rewrites its marked blocks.

A block begins with `<!-- bench: WHAT -->` and ends with `<!-- /bench -->`. WHAT is `bars` (of all results), or a result
and a section of it, such as `decoding-cpu sizes`, or a result and `figure` or `paper`. Blocks without a result say so.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bench import report
from bench.machine import ROOT
from bench.paradigms import PAPER, PAPER_SIZE
from bench.report import RESULTS, Row, find, number

PAGE = ROOT / "docs" / "performance.md"
BLOCK = re.compile(r"(<!-- bench: (?P<what>[^>]*?) -->\n)(.*?)(<!-- /bench -->)", re.DOTALL)
COMMANDS = {"decoding": "python -m bench.decoding", "catalog": "python -m bench.catalog"}
COMMANDS |= {"encoding": "python -m bench.encoding RUN", "index": "python -m bench.index RUN PICTURES"}
COMMANDS |= {"serve": "python -m bench.serve", "waiting": "python -m bench.waiting"}


def filled(text: str, results: Path = RESULTS) -> str:
    """The page with all blocks updated from the results."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{content(block['what'], results)}\n\n{block[4]}", text)


def content(what: str, results: Path) -> str:
    """Markdown of one block."""
    if what == "bars":
        return all_bars(results)
    name, part = what.split()
    known = report.load(results / f"{name}.json")
    if part == "figure":
        path = results / f"{name}.svg"
        return (
            f"![Queries per second by number of images](../bench/results/{path.name})" if path.exists() else _not(name)
        )
    section = known.get("paradigms" if part == "paper" else part)
    if section is None:
        return _not(name)
    if part == "paper":
        return paper_table(section)
    return report.page({part: section}, heading=False).strip()


def all_bars(results: Path) -> str:
    """All bounds of all results, and how many are met."""
    bars = []
    for path in sorted(results.glob("*.json")):
        if path.stem.endswith("quick"):
            continue
        for section in report.load(path).values():
            bars += [bar | {"name": f"{bar['name']} ({path.stem})"} for bar in section["bars"]]
    if not bars:
        return _not("decoding-cpu")
    met = sum(bar["passed"] for bar in bars)
    return f"{met} of {len(bars)} bounds are met.\n\n{report.bar_table(bars)}"


def paper_table(section: dict[str, Any]) -> str:
    """The speed column of the paper's Table 2, and our measurements."""
    rows = section["rows"]
    batches = sorted({row["batch"] for row in rows if row["system"] == "AVG"})
    avg = [row["backbone"] for row in rows if row["system"] == "AVG" and row["images"] == PAPER_SIZE]
    backbone = "t5-base" if "t5-base" in avg else (avg or [""])[-1]
    systems: dict[str, Row] = {
        "BLIP, every image": {"system": "BLIP, whole pair"},
        "CLIP ViT-B/32, exact search": {"system": "two-tower, exact", "backbone": "CLIP ViT-B/32"},
        f"AVG, {backbone}": {"system": "AVG", "backbone": backbone},
    }
    speeds = {
        name: [(find(rows, images=PAPER_SIZE, batch=batch, **facts) or {}).get("queries_per_s") for batch in batches]
        for name, facts in systems.items()
    }
    _, clip, ours = speeds.values()
    lines = [
        ["queries/s over 0.3M images", "the paper", *(f"here, {batch} at a time" for batch in batches)],
        ["---", *["---:"] * (1 + len(batches))],
        *(
            [name, f"{PAPER[key]:g}", *(number(value) if value else "" for value in values)]
            for (name, values), key in zip(speeds.items(), ("BLIP", "CLIP", "AVG"), strict=True)
        ),
        ["AVG against CLIP", f"{number(PAPER['AVG'] / PAPER['CLIP'])} ×"]
        + [f"{number(mine / theirs)} ×" if mine and theirs else "" for mine, theirs in zip(ours, clip, strict=True)],
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _not(name: str) -> str:
    kind, _, where = name.partition("-")
    option = {"cuda": " --device cuda", "postgresql": " --url postgresql+psycopg://..."}.get(where, "")
    return f"Not measured yet: `{COMMANDS[kind]}{option}`."


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
