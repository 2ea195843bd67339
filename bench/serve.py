"""`genret serve` under load: a process of its own, and clients that ask again as soon as they are answered.

    python -m bench.serve [--run avg-1] [--clients 64] [--minutes 5]      # nothing else should run
    python -m bench.serve --only batching

`load`: every client searches without a pause. Errors, latency and throughput by the minute; with five minutes or more,
the server's resident memory of the fifth against the first. `batching`: a server as it is by default, and one that
searches one query at a time (`--max-batch 1 --batch-ms 0`), in turns. Both with the run's own beams and with few.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import torch

import genret
from bench import report
from bench.machine import facts
from bench.options import say
from bench.report import RESULTS, Row, Section, bar, bars

FEW_BEAMS = 10
"""Of the searches that leave the model room: here the batch decides what a step costs."""
ROUNDS, SECONDS = 3, 8
"""Of `batching`: turns of each server, and seconds of a turn."""
WARM_UP = 5.0
"""Seconds before anything is measured."""
MINUTE = 60.0


class Server(NamedTuple):
    port: int
    pid: int

    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self) -> float:
        """Used so far, by all its threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Answers(NamedTuple):
    seconds: list[float]
    """Of each answer, in the order of arrival"""
    errors: int
    elapsed: float
    cpu: float
    """Seconds of processor time that the server used"""

    @property
    def cpu_ms(self) -> float:
        """Of each answer: what other programs on the machine do not change."""
        return 1000 * self.cpu / max(1, len(self.seconds))

    @property
    def per_s(self) -> float:
        return len(self.seconds) / self.elapsed

    def quantile(self, share: float) -> float:
        """Milliseconds."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


@contextmanager
def served(run: str, *options: str) -> Iterator[Server]:
    """`genret serve` on a free port, once its model is loaded. All cores, as its users have them."""
    command = [sys.executable, "-m", "genret", "serve", "--run", run, "--port", "0", "--rate", "0", *options]
    kept = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=kept | {"PYTHONUNBUFFERED": "1"})
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        if found is None:
            raise SystemExit(f"the server did not start: {line or 'it said nothing'}")
        port = int(found[1])
        until = time.monotonic() + 120
        while asyncio.run(_ready(port)) != 200:
            if time.monotonic() > until or process.poll() is not None:
                raise SystemExit("the server did not load its model")
            time.sleep(0.2)
        yield Server(port, process.pid)
    finally:
        process.terminate()
        process.wait(60)


async def _ready(port: int) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await _get(reader, writer, "/readyz", port)
    finally:
        writer.close()


async def _get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str, port: int) -> int:
    """The status of one request over a kept connection. As little work as can be: it shares the machine's cores."""
    writer.write(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1])  # type: ignore[index]
    await reader.readexactly(length)
    return int(head[9:12])


async def ask(server: Server, targets: list[str], clients: int, seconds: float) -> Answers:
    """Each client asks, waits for the answer, and asks the next."""
    taken, errors, following = list[float](), 0, itertools.cycle(targets)
    began, cpu = time.perf_counter(), server.cpu_seconds()

    async def client() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        while (at := time.perf_counter()) - began < seconds:
            try:
                good = await _get(reader, writer, next(following), server.port) == 200
            except (OSError, asyncio.IncompleteReadError):
                good = False
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            if good:
                taken.append(time.perf_counter() - at)
            else:
                errors += 1
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return Answers(taken, errors, time.perf_counter() - began, server.cpu_seconds() - cpu)


def targets_of(run: str, num_beams: int | None = None) -> list[str]:
    """Searches for the captions of the run's test images, as the API's addresses."""
    with genret.load(run) as opened:
        captions = [text for record in opened.dataset.records("test") for text in record.captions[:1]]
    beams = {} if num_beams is None else {"num_beams": num_beams}
    return [f"/v1/search?{urlencode({'q': text, 'k': 24, **beams})}" for text in captions[:1000]]


def load(run: str, clients: int, minutes: float) -> Section:
    """All clients for `minutes`."""
    targets, rows = targets_of(run), list[Row]()
    memory = list[list[int]]()
    with served(run) as server:
        asyncio.run(ask(server, targets, clients, WARM_UP))
        for minute in range(1, round(minutes) + 1):
            found, resident = asyncio.run(_watched(server, targets, clients))
            memory.append(resident)
            rows.append(
                {
                    "minute": minute, "clients": clients, "answers": len(found.seconds), "errors": found.errors,
                    "queries_per_s": found.per_s, "cpu_ms": found.cpu_ms,
                    "p50_ms": found.quantile(0.5), "p99_ms": found.quantile(0.99),
                    "resident_mb": statistics.median(resident) / 2**20,
                }
            )  # fmt: skip
            say(str(rows[-1]))
    growth = None
    if len(rows) >= 5:
        growth = 100 * (statistics.median(memory[4]) / statistics.median(memory[0]) - 1)
    return Section(
        f"{clients} concurrent clients",
        tuple(rows[0]),
        rows,
        bars(
            bar("errors of the first minute", rows[0]["errors"], 0, unit="answers"),
            bar("resident memory, fifth minute against first", growth, 2, unit="%"),
        ),
        {},
    )


async def _watched(server: Server, targets: list[str], clients: int) -> tuple[Answers, list[int]]:
    """A minute of load, and the resident bytes of each of its seconds."""
    resident = list[int]()

    async def watch() -> None:
        while True:
            resident.append(server.resident_bytes())
            await asyncio.sleep(1)

    watching = asyncio.create_task(watch())
    found = await ask(server, targets, clients, MINUTE)
    watching.cancel()
    return found, resident


def batching(run: str, clients: int) -> Section:
    """The same load on a server that batches and on one that does not, in turns."""
    rows, ratios = list[Row](), dict[str, float]()
    with served(run) as batched, served(run, "--max-batch", "1", "--batch-ms", "0") as single:
        for name, beams in (("the run's own", None), (str(FEW_BEAMS), FEW_BEAMS)):
            targets = targets_of(run, beams)
            speeds: dict[str, list[Answers]] = {"batched": [], "one at a time": [], "one client": []}
            ways = (("batched", batched, clients), ("one at a time", single, clients), ("one client", single, 1))
            for turn in range(ROUNDS + 1):
                for way, server, number in ways:
                    found = asyncio.run(ask(server, targets, number, SECONDS if turn else WARM_UP))
                    if turn:
                        speeds[way].append(found)
            for way, _, number in ways:
                rows.append(
                    {
                        "beams": name, "server": way, "clients": number,
                        "queries_per_s": statistics.median(one.per_s for one in speeds[way]),
                        "cpu_ms": statistics.median(one.cpu_ms for one in speeds[way]),
                        "p50_ms": statistics.median(one.quantile(0.5) for one in speeds[way]),
                        "p99_ms": statistics.median(one.quantile(0.99) for one in speeds[way]),
                        "errors": sum(one.errors for one in speeds[way]),
                    }
                )  # fmt: skip
                say(str(rows[-1]))
            ratios[name] = rows[-3]["queries_per_s"] / rows[-2]["queries_per_s"]
    found_bars = bars(
        *(bar(f"batched against one at a time, beams: {name}", ratio, 3, True) for name, ratio in ratios.items())
    )
    return Section(f"Batching, {clients} clients", tuple(rows[0]), rows, found_bars, {})


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--run", default="avg-1")
    options.add_argument("--clients", type=int, default=64)
    options.add_argument("--minutes", type=float, default=5, help="of `load`; 5 or more for the memory")
    options.add_argument("--only", choices=("load", "batching"))
    options.add_argument("--out", type=Path, default=RESULTS / "serve-cpu.json")
    given = options.parse_args()
    measured = facts(torch.device("cpu"))
    measured["threads"] = measured["cores"]  # the server's, whatever this process is limited to
    for name in ("load", "batching") if given.only is None else (given.only,):
        say(name)
        section = (
            load(given.run, given.clients, given.minutes) if name == "load" else batching(given.run, given.clients)
        )
        asked: dict[str, Any] = {"run": given.run, "clients": given.clients, "minutes": given.minutes}
        report.save(given.out, name, report.as_json(section, measured, asked))
    print(report.page(report.load(given.out)))


if __name__ == "__main__":
    main()
