"""The last words of a training: what was made, and what to run next."""

from __future__ import annotations

import shlex

from genret.commands.run_folders import run_option
from genret.evaluate.evaluation import Evaluation
from genret.run import Run
from genret.train.data import Split


def next_steps(run: Run, searched: Split, found: Evaluation | None, seconds: dict[str, float]) -> str:
    """The final message of a training: what was made, how good it is, what to run next."""
    count = len(searched.records)
    how = f"not measured: {'they have no captions' if found is None else found.remark}"
    for k, place in (("1", "at the first place"), ("10", "among the first ten")):
        if found is not None and (k == "1" or count > 10) and (recall := found.recall[k]) is not None:
            how = f"{recall:.0f} % of their captions find the right one {place}"
    example = shlex.quote(searched.captions[0]) if searched.captions else '"what one shows"'
    option = run_option(run.folder, run.settings)
    measure = f"\n       genret evaluate{option} --num-beams 1,5,10,20" if searched.captions else ""
    return (
        f"\n{run.folder} is ready after {sum(seconds.values()):.0f} s. It searches {count:,} pictures; {how}.\n"
        f"Next:  genret search {example}{option}\n"
        f"       genret index FOLDER{option}          adds your own pictures{measure}"
    )
