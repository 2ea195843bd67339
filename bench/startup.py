"""The time of `genret --help`, compared with an eleven-command typer program with pydantic, and with twenty plugins.

    python bench/startup.py

Prints medians and ratios; the project's bounds are 2 and 1.3. Runs alternate, so that load on the machine affects all
equally. The plugins are installed packages as docs/plugins.md makes them: ten of one module that imports torch, ten
that register "module:Class". The first start, which imports them all, is reported too.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 15
PLUGINS = 20
ELEVEN_COMMANDS = '''
import typer
from pydantic import BaseModel

app = typer.Typer()


class Options(BaseModel):
    count: int = 1


def make(number):
    def command(name: str, count: int = 1, json: bool = False):
        """Does something with NAME."""

    command.__name__ = f"command{number}"
    return command


for number in range(11):
    app.command()(make(number))
app(["--help"])
'''
LAZY = """
import genret

@genret.hookimpl
def register_losses(register):
    register("bench-{number}", "genret_bench_{number}.loss:Loss")
"""
EAGER = """
import torch
import genret

class Loss(genret.Loss):
    stage = "generator"
    def __call__(self, batch):
        return batch.logits.float().mean()

@genret.hookimpl
def register_losses(register):
    register("bench-{number}", Loss)
"""


def install_plugins(site: Path) -> Path:
    """Twenty packages with entry points, as pip would install them."""
    for number in range(PLUGINS):
        module = f"genret_bench_{number}"
        site.mkdir(exist_ok=True)
        (site / f"{module}.py").write_text((EAGER if number % 2 else LAZY).format(number=number))
        facts = site / f"{module}-0.1.0.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: genret-bench-{number}\nVersion: 0.1.0\n")
        (facts / "entry_points.txt").write_text(f"[genret]\nbench-{number} = {module}\n")
    return site


def seconds(command: list[str], environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environment)
    return time.perf_counter() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "eleven.py").write_text(ELEVEN_COMMANDS)
        for home in ("bare", "rich"):  # an existing home, as after any training, holds a cache
            (folder / home).mkdir()
        bare = {**os.environ, "GENRET_HOME": str(folder / "bare")}
        path = os.pathsep.join([str(install_plugins(folder / "site")), *filter(None, [os.environ.get("PYTHONPATH")])])
        rich = {**os.environ, "GENRET_HOME": str(folder / "rich"), "PYTHONPATH": path}
        help_command = [sys.executable, "-m", "genret", "--help"]
        programs = {
            "genret --help": (help_command, bare),
            "eleven commands": ([sys.executable, str(folder / "eleven.py")], bare),
            "with twenty plugins": (help_command, rich),
        }
        first = {name: round(seconds(*program), 3) for name, program in programs.items()}  # also writes the bytecode
        times: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(RUNS):
            for name, program in programs.items():
                times[name].append(seconds(*program))
    medians = {name: round(statistics.median(taken), 3) for name, taken in times.items()}
    ours, theirs, plugged = medians.values()
    ratios = {"to eleven commands": round(ours / theirs, 2), "of twenty plugins": round(plugged / ours, 2)}
    print(json.dumps({"median_seconds": medians, "ratios": ratios, "runs": RUNS, "first_seconds": first}))


if __name__ == "__main__":
    main()
