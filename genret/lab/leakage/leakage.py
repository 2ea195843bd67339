"""Leakage of searched images into training and development, to be reported with every figure.

Training drops images that are also in the searched or development split. All other overlaps are only reported: captions
of the same words, near-duplicates, development images that are searched. The full list is `leakage.json` in the run;
outputs have counts and a few examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from genret.errors import GenretError, one_line
from genret.kit.files import read_json, write_json
from genret.lab.leakage.duplicates import NEAR, Leak, near_duplicates, same_captions, same_pictures
from genret.train.copies import TrainingSplits, copies

FILE = "leakage.json"
FORMAT = 1
EXAMPLES = 5
"""Number of leaks of a kind shown in outputs; the file has all."""


class Leakage(NamedTuple):
    """All overlaps of a run's splits."""

    images: dict[str, int]
    """Number of images compared of each split"""
    concepts: str | None
    """`seen-concepts` if the data set shares captions between splits by design"""
    leaks: list[Leak]
    remark: str | None = None
    """Overlap of synthetic captions with original ones"""

    def between(self, split: str, other: str) -> list[Leak]:
        return [leak for leak in self.leaks if (leak.split, leak.other_split) == (split, other)]

    def as_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "near": NEAR} | self._asdict() | {"leaks": [vars(leak) for leak in self.leaks]}

    def write(self, run: Path) -> None:
        write_json(run / FILE, self.as_json())


def find_leakage(splits: TrainingSplits) -> Leakage:
    """Compares every split with the later ones."""
    train, dev, test = splits.train, splits.dev, splits.test
    gone = {one.row for found in splits.copies.values() for one in found}
    leaks = [leak for one in (dev, test) for leak in same_pictures(train, one, splits.copies[one.name], left_out=True)]
    twins = copies(dev, test, splits.pixels)
    leaks += same_pictures(dev, test, twins, left_out=False)
    for known, searched in combinations((train, dev, test), 2):
        apart = gone if known is train else {one.row for one in twins}
        leaks += near_duplicates(known, searched, apart)
        leaks += same_captions(known, searched, gone if known is train else ())
    sizes = {side.name: len(side.records) for side in (train, dev, test)}
    return Leakage(sizes, splits.concepts, leaks, splits.remark)


def read_leakage(run: Path, split: str) -> dict[str, Any] | None:
    """A split's summary for outputs: counts by kind and other split, and examples; None if nothing was compared."""
    path = run / FILE
    if not path.exists():
        return None
    try:
        found = read_json(path)
        if found["format"] != FORMAT:
            raise ValueError("another version of genret wrote it")
        leaks = [Leak(**leak) for leak in found["leaks"]]
        whole = Leakage(found["images"], found["concepts"], leaks, found["remark"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GenretError(
            f"{path} cannot be used ({one_line(error, 80)}); make it anew with: genret train --run {run} --resume"
        ) from None
    return summary(whole, split)


def summary(found: Leakage, split: str) -> dict[str, Any]:
    """`groups`: one for each kind and other split that has any, with `images` (searched ones concerned), `leaks`,
    `left_out` and `examples`."""
    groups: dict[tuple[str, str], list[Leak]] = {}
    for leak in found.leaks:
        if leak.split == split:
            groups.setdefault((leak.kind, leak.other_split), []).append(leak)
    return {
        "file": FILE,
        "near": NEAR,
        "concepts": found.concepts,
        "remark": found.remark,
        "groups": [
            {
                "kind": kind,
                "other_split": other,
                "images": len({leak.image_id for leak in leaks}),
                "leaks": len(leaks),
                "left_out": sum(leak.left_out for leak in leaks),
                "examples": [vars(leak) for leak in _telling(leaks)],
            }
            for (kind, other), leaks in groups.items()
        ],
    }


def _telling(leaks: Sequence[Leak]) -> list[Leak]:
    """The clearest leak of each searched image."""
    plainest: dict[tuple[str, str | None], Leak] = {}
    for leak in sorted(leaks, key=lambda leak: -(leak.similarity or 0)):
        plainest.setdefault((leak.image_id, leak.caption), leak)
    return list(plainest.values())[:EXAMPLES]


def sentences(found: dict[str, Any] | None, split: str) -> list[str]:
    """The same as lines of text."""
    if found is None:
        return ["not looked for; genret train --run DIR --resume does"]
    lines = [_sentence(group, split, found) for group in found["groups"]]
    if found["remark"]:
        lines.append(found["remark"])
    return lines or [f"none found between the split '{split}' and those that were learnt from"]


def _sentence(group: dict[str, Any], split: str, found: dict[str, Any]) -> str:
    other, count, examples = group["other_split"], group["images"], group["examples"]
    source = "training" if other == "train" else f"'{other}'"
    if group["kind"] == "same-caption":
        said = f"{group['leaks']:,} captions of split '{split}' have the words of a {source} caption and stay"
        if found["concepts"] == "seen-concepts":
            return f"{said}: the data set shares concepts between splits by design (seen-concepts)"
        named = [
            f'"{one_line(one["caption"], 60)}" of {one["image_id"]}, as of {one["other_image_id"]}' for one in examples
        ]
    elif group["kind"] == "near-duplicate":
        said = (
            f"{count:,} pictures of split '{split}' look like {source} pictures (cosine from {found['near']}) and stay"
        )
        named = [f"{one['image_id']} like {one['other_image_id']} ({one['similarity']:.2f})" for one in examples]
    else:
        how = "byte for byte" if group["kind"] == "same-file" else "pixel for pixel"
        what = "they are left out of training" if group["left_out"] else "they stay"
        said = f"{group['leaks']:,} {source} pictures are also in the split '{split}', {how}; {what}"
        named = [f"{one['other_image_id']} is {one['image_id']}" for one in examples]
    total = group["leaks"] if group["kind"] != "near-duplicate" else count
    more = f" … all in {found['file']}" if total > len(named) else ""
    return f"{said}: {'; '.join(named)}{more}"
