"""The tests marked `gpu`, as a part of `python -m bench.gpu`: how many passed, and which did not."""

from __future__ import annotations

import os
from typing import Any

import pytest

from bench import machine
from bench.gpu.options import measure, parser
from bench.report import Section, bar, bars


class Outcomes:
    """A pytest plugin that counts outcomes and keeps what tests have recorded with `record_property`."""

    def __init__(self) -> None:
        self.count = {"passed": 0, "failed": 0, "skipped": 0}
        self.failed: list[str] = []
        self.told: dict[str, Any] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.count[report.outcome] += 1
            self.failed += [report.nodeid] if report.outcome == "failed" else []
        if report.when == "call":
            self.told |= {str(key): value for key, value in report.user_properties}


def section() -> Section:
    outcomes = Outcomes()
    tests = machine.ROOT / "tests" / "gpu"
    words = [str(tests), "-m", "gpu", "-rs", "-p", "no:cacheprovider", f"--rootdir={machine.ROOT}"]
    words += ["-W", "default::DeprecationWarning", "-W", "default::FutureWarning"]
    pytest.main(words, plugins=[outcomes])
    count = outcomes.count
    checks: dict[str, Any] = {"tests": count} | outcomes.told
    if outcomes.failed:
        checks["failed"] = ", ".join(outcomes.failed)
    return Section(
        "Correctness on the device",
        ["system", "note"],
        [{"system": name, "note": str(number)} for name, number in count.items()],
        bars(bar("tests that failed", float(count["failed"] + (count["passed"] == 0)), 0, unit="")),
        checks,
    )


def main() -> None:
    arguments = parser(__doc__.split("\n")[0]).parse_args()
    os.environ["GENRET_GPU_TESTS"] = arguments.device
    found: list[Section] = []

    def make() -> Section:
        found.append(section())
        return found[0]

    measure(arguments, {"correctness": make})
    if not all(one.passed for one in found[0].bars):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
