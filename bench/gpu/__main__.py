"""Proves and measures genret on a GPU, part by part: `python -m bench.gpu`.

Each part is a process with a time limit, and leaves `<part>.json` and `<part>.log` in the results folder. A part that
was done for this commit on this machine is not run again, so the command can be stopped and repeated.
`--device cpu --quick` rehearses everything on a machine without a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from bench import machine, report
from bench.gpu.options import NOT_MEASURED
from bench.gpu.parts import PARTS, Part, Setup
from bench.options import say

DONE, FAILED, STOPPED, MISSING = "done", "failed", "stopped", "not measured"


def parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.split("\n")[0])
    parse.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu for a rehearsal")
    parse.add_argument("--quick", action="store_true", help="tiny models and catalogs: does it run at all?")
    parse.add_argument("--only", help=f"some parts, e.g. correctness,sid-gr; of {', '.join(p.name for p in PARTS)}")
    parse.add_argument("--seconds", type=float, default=3600, help="begin no part after this time, and stop it then")
    parse.add_argument("--again", action="store_true", help="run parts that were done, too")
    parse.add_argument("--flickr8k", type=Path, help="folder with dataset_flickr8k.json and images/, for the last part")
    parse.add_argument("--out", type=Path, help="results folder (default: bench/results/gpu, or gpu-quick)")
    return parse


def main(words: list[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU here; `--device cpu --quick` rehearses without one")
    names = arguments.only.split(",") if arguments.only else [part.name for part in PARTS]
    if unknown := [name for name in names if name not in {part.name for part in PARTS}]:
        raise SystemExit(f"there is no part {unknown[0]}; take some of {', '.join(part.name for part in PARTS)}")
    setup = Setup(arguments.device, arguments.quick, arguments.flickr8k)
    folder = arguments.out or report.RESULTS / ("gpu-quick" if arguments.quick else "gpu")
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + arguments.seconds
    about = machine.facts(device)
    found = {}
    for part in (part for part in PARTS if part.name in names):
        known = None if arguments.again else _known(folder / f"{part.name}.json", about)
        found[part.name] = known or run(part, setup, folder, end - time.monotonic(), about)
        say(f"{part.name}: {found[part.name]['status']}{'' if known is None else ' before'}")
    text = summary(found, about)
    (folder / "summary.md").write_text(text, encoding="utf-8")
    print(text)
    if any(entry["status"] in (FAILED, STOPPED) for entry in found.values()):
        raise SystemExit(1)


def run(part: Part, setup: Setup, folder: Path, left: float, about: dict[str, Any]) -> dict[str, Any]:
    """Runs a part in a process of its own, and writes down how it ended."""
    entry: dict[str, Any] = {"title": part.title, "measured": about, "seconds": 0, "reason": "", "sections": {}}
    path, out, log = (folder / f"{part.name}{end}" for end in (".json", "-figures.json", ".log"))
    if left < 1:
        return entry | {"status": MISSING, "reason": "no time was left"}
    out.unlink(missing_ok=True)
    command = part.command(setup, out)
    say(f"{part.name}: {' '.join(command[1:])}")
    began = time.monotonic()
    with log.open("w", encoding="utf-8") as written:
        process = subprocess.Popen(
            command, cwd=machine.ROOT, stdout=written, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code: int | None = process.wait(min(part.seconds, left))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = None
    status = {0: DONE, NOT_MEASURED: MISSING, None: STOPPED}.get(code, FAILED)
    last = next((line for line in reversed(log.read_text(encoding="utf-8").splitlines()) if line.strip()), "")
    reasons = {DONE: "", STOPPED: f"after {round(time.monotonic() - began)} s; what it measured before is kept"}
    entry |= {"status": status, "reason": reasons.get(status, last), "seconds": round(time.monotonic() - began, 1)}
    entry["sections"] = report.load(out)
    path.write_text(json.dumps(entry, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return entry


def _known(path: Path, about: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a part that was done for the same code on the same machine."""
    if not path.exists():
        return None
    entry: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    same = all(entry["measured"].get(key) == about.get(key) for key in ("commit", "device", "gpu", "processor"))
    return entry if same and entry["status"] == DONE else None


def summary(found: dict[str, dict[str, Any]], about: dict[str, Any]) -> str:
    """How each part ended, and its figures, as Markdown."""
    lines = [["part", "", "seconds", ""], ["---", "---", "---:", "---"]]
    lines += [[name, entry["status"], str(entry["seconds"]), entry["reason"]] for name, entry in found.items()]
    parts = ["\n".join("| " + " | ".join(line) + " |" for line in lines), f"Machine: {machine.sentence(about)}."]
    parts += [report.page(entry["sections"]) for entry in found.values() if entry["sections"]]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.path.insert(0, str(machine.ROOT))
    main()
