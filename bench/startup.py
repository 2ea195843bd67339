"""How long `genret --help` takes, beside an eleven-command typer program that imports pydantic.

    python bench/startup.py

Prints both medians and their ratio; the project's bound is 2. Runs alternate, so that a busy machine slows both.
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


def seconds(command: list[str], environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environment)
    return time.perf_counter() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "eleven.py"
        program.write_text(ELEVEN_COMMANDS)
        environment = {**os.environ, "GENRET_HOME": folder}
        commands = {
            "genret --help": [sys.executable, "-m", "genret", "--help"],
            "eleven commands": [sys.executable, str(program)],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for command in commands.values():
            seconds(command, environment)  # writes the bytecode
        for _ in range(RUNS):
            for name, command in commands.items():
                times[name].append(seconds(command, environment))
    medians = {name: round(statistics.median(taken), 3) for name, taken in times.items()}
    ours, theirs = medians.values()
    print(json.dumps({"median_seconds": medians, "ratio": round(ours / theirs, 2), "runs": RUNS}))


if __name__ == "__main__":
    main()
