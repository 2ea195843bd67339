"""The memory of this machine."""

from __future__ import annotations

from pathlib import Path


def free_bytes() -> int | None:
    """The memory of this machine in bytes; None if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None
