"""The paper's differences between two rows, and whether they are reproduced, with significance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from genret.evaluate.metrics import CUTOFFS
from genret.lab.compare.compare import PairedTest, difference
from genret.lab.paper.paper import DataSet, PaperTable, reported_on
from genret.lab.paper.reproduce import Line
from genret.lab.sweep.sweep import RowResult

ALIKE = 0.5
"""Points of recall below which differences are ignored: a tenth of the paper's sampling error over test queries."""
LEVEL = 0.05
"""Significance level."""


@dataclass(frozen=True, kw_only=True)
class EffectCheck:
    """The paper's difference between two rows, and whether it is reproduced."""

    protocol: str
    row: str
    against: str
    measure: str
    paper: float
    """Points by which the row is better in the paper, and here"""
    ours: float
    p: float
    verdict: str

    def text(self) -> str:
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"
        return f"{self.measure} {self.ours:+.1f} ({p}; paper {self.paper:+.1f}): {self.verdict}"


def effect_checks(
    table: PaperTable, data: DataSet, lines: Sequence[Line], results: Sequence[RowResult]
) -> list[EffectCheck]:
    """The paper's differences between rows, each with ours and its significance."""
    source = reported_on(data, table)
    found = []
    for protocol in dict.fromkeys(line.protocol for line in lines):
        there = [
            (line, result, figures)
            for line, result in zip(lines, results, strict=True)
            if line.protocol == protocol and result.outcomes and (figures := line.of.paper.get(source))
        ]
        if table.compare == "order":
            there.sort(key=lambda one: -(one[2][-1] or 0))
        firsts = there[:1] * (len(there) - 1) if table.compare == "first" else there[:-1]
        for (a, ours_a, paper_a), (b, ours_b, paper_b) in zip(firsts, there[1:], strict=True):
            tests = difference(a.of.name, ours_a.outcomes, b.of.name, ours_b.outcomes)
            by_measure = {test.measure: test for test in tests}  # empty if there are no figures
            for k, left, right in zip(CUTOFFS, paper_a, paper_b, strict=True):
                test = by_measure.get(f"recall@{k}")
                if test is not None and left is not None and right is not None:
                    delta = round(left - right, 2)
                    check = EffectCheck(
                        protocol=protocol,
                        row=a.of.name,
                        against=b.of.name,
                        measure=f"R@{k}",
                        paper=delta,
                        ours=test.difference,
                        p=test.p,
                        verdict=_verdict(delta, test),
                    )
                    found.append(check)
    return found


def _verdict(paper: float, test: PairedTest) -> str:
    lucky = test.p >= LEVEL
    if abs(paper) < ALIKE:
        return "alike, as in the paper" if lucky else "not alike here"
    if test.difference * paper > 0:
        return "seen" if not lucky else "seen, but within luck"
    return "not seen" if lucky else "reversed"


def effects_text(found: Sequence[EffectCheck]) -> str:
    """A line for each pair of rows; empty if there is none."""
    pairs: dict[tuple[str, str, str], list[EffectCheck]] = {}
    for check in found:
        pairs.setdefault((check.protocol, check.row, check.against), []).append(check)
    return "\n".join(_pair_lines(pairs))


def _pair_lines(pairs: dict[tuple[str, str, str], list[EffectCheck]]) -> Iterator[str]:
    if pairs:
        yield "The paper's differences, here (Fisher's randomization test over queries, two-sided):"
    for (protocol, row, against), parts in pairs.items():
        yield f"- {row} against {against}, {protocol}: {'; '.join(check.text() for check in parts)}"
