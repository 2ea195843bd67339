"""A small training loop alone and beside a busy process, with threads that spin or sleep while they wait.

    python -m bench.waiting            # a minute or two on two cores; nothing else should run

`import genret` makes them sleep (`OMP_WAIT_POLICY` and others) unless one of the variables is set. Each figure is the
median over processes, which run in turns.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

import torch

from bench import report
from bench.machine import facts

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
ACTIVE = {"OMP_WAIT_POLICY": "ACTIVE"}
BOUND = 2.2
"""× the time of a step alone."""
LOOP = """
import sys, time
import genret
import torch
torch.manual_seed(0)
model = torch.nn.Sequential(*(torch.nn.Linear(512, 512) for _ in range(6)))
optimizer = torch.optim.AdamW(model.parameters())
rows = torch.randn(128, 512)
def steps(count):
    start = time.perf_counter()
    for _ in range(count):
        optimizer.zero_grad()
        model(rows).square().mean().backward()
        optimizer.step()
    return (time.perf_counter() - start) / count
steps(10)
print(1000 * steps(int(sys.argv[1])))
"""


def milliseconds(environment: dict[str, str], steps: int) -> float:
    """Of one step, in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if name not in (*WAITING, "OMP_NUM_THREADS")}
    words = [sys.executable, "-c", LOOP, str(steps)]
    return float(subprocess.run(words, env=kept | environment, capture_output=True, text=True, check=True).stdout)


def measure(rounds: int, steps: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a step alone and beside a busy process, by way of waiting: torch's own, spinning, genret's."""
    ways: dict[str, dict[str, str]] = {"torch's default": {"KMP_BLOCKTIME": "200"}}
    ways |= {"spinning": ACTIVE, "genret's default": {}}
    times: dict[str, dict[str, list[float]]] = {way: {"alone": [], "beside": []} for way in ways}
    for _ in range(rounds):
        for where in ("alone", "beside"):
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if where == "beside" else None
            try:
                for way, environment in ways.items():
                    times[way][where].append(milliseconds(environment, steps))
            finally:
                if busy is not None:
                    busy.kill()
                    busy.wait()
    return {
        way: {where: statistics.median(found) for where, found in both.items()}
        | {"ratio": statistics.median(both["beside"]) / statistics.median(both["alone"])}
        for way, both in times.items()
    }


def section(found: dict[str, dict[str, float]]) -> report.Section:
    rows: list[report.Row] = [
        {"system": way, "alone_ms": one["alone"], "beside_ms": one["beside"], "to_alone": one["ratio"]}
        for way, one in found.items()
    ]
    bars = report.bars(report.bar("a step beside a busy process, against alone", rows[-1]["to_alone"], BOUND))
    return report.Section("Threads that wait", ["system", "alone_ms", "beside_ms", "to_alone"], rows, bars)


def main() -> None:
    measured = facts(torch.device("cpu"))
    whole = report.as_json(section(measure(rounds=5, steps=100)), measured, {"rounds": 5, "steps": 100})
    report.save(report.RESULTS / "waiting-cpu.json", "waiting", whole)
    print(report.page({"waiting": whole}))


if __name__ == "__main__":
    main()
