"""`genret reproduce`: a table of the paper as rows of a sweep, its figures beside ours, and what of them is seen.

Rows that several tables share (AVG itself) are one run, because runs are found by their recipes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from genret.compatibility import guessed
from genret.errors import RecipeError, UsageError
from genret.evaluate.compare import PairedTest, difference
from genret.evaluate.metrics import CUTOFFS
from genret.evaluate.outcome import name_of, text_of, two_tower
from genret.evaluate.text_table import TextTable
from genret.plain_yaml import parse
from genret.registry import Registries
from genret.train.grid import override, slug
from genret.train.grid_sweep import seeded
from genret.train.paper import DATA, REPORTED_ON, DataSet, PaperRow, PaperTable, reported_on
from genret.train.sweep import Row, RowResult

OVERLAYS: dict[DataSet, list[str]] = {
    "emoji": [],
    "flickr8k": ["scale/flickr8k.yaml"],
    "flickr30k": ["scale/flickr30k.yaml"],
    "coco": ["scale/coco.yaml"],
}
"""What is laid over a recipe to train it on a data set; emoji is what recipes name themselves."""
ALIKE = 0.5
"""Points of recall below which the paper's own figures say nothing: a tenth of its test queries' sampling error."""
LEVEL = 0.05
"""p-values below it are more than luck."""


class Line(NamedTuple):
    """One line of the table to be."""

    of: PaperRow
    protocol: str
    row: Row


class Sign(NamedTuple):
    """What the paper says of two rows, and whether it is seen here."""

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


def lines_of(
    table: PaperTable,
    data: DataSet,
    recipes: Path,
    overrides: Sequence[str],
    seeds: int | None,
    registries: Registries,
) -> list[Line]:
    """Every row of the table as runs to be made, all of them checked; `overrides` come last."""
    fixed = any(word.partition("=")[0].strip() == "protocol" for word in overrides)
    lines, faults = [], dict[str, None]()
    for protocol in (None,) if fixed or not table.protocols else table.protocols:
        chosen = [] if protocol is None else [f"protocol={protocol}"]
        for row in table.rows_on(data):
            overlay = [recipes / name for name in OVERLAYS[data]]
            laid = [word for file in overlay for word in _without(file, row.own)] if row.own else []
            names = [
                name
                for part in row.recipes
                for name in ([recipes / part] if part != DATA else [] if row.own else overlay)
            ]
            words = [*laid, *table.on.get(data, []), *row.set, *chosen, *overrides]
            try:
                found = seeded(names, words, seeds, registries)
            except RecipeError as error:
                faults |= {f"{row.name}: {fault}": None for fault in error.faults}
            else:
                label = slug(f"{row.name}_{found[0].protocol}")
                left_out = guessed(found[0], registries)  # a training would only tell what is known beforehand
                lines.append(Line(row, found[0].protocol, Row(label, found, row.beams, left_out)))
    if faults:
        raise RecipeError(faults)
    return lines


def _without(file: Path, own: Sequence[str]) -> list[str]:
    """What a recipe file says, but for some keys, as overrides: they merge by the same rule."""
    found = parse(file.read_text(encoding="utf-8")).value
    return [override(key, value) for key, value in found.items() if key not in own]


def find_recipes(given: Path | None) -> Path:
    """The folder of recipes: the one named, else the working directory's, else that of the clone genret runs from."""
    clone = Path(__file__).parents[2] / "recipes"
    for folder in [given] if given else [Path("recipes"), clone]:
        if (folder / "avg.yaml").is_file():
            return folder
    where = f"{given} holds no avg.yaml" if given else "there is no folder recipes/ here"
    raise UsageError(f"{where}; name the folder of genret's recipes: --recipes DIR (it is in genret's repository)")


def check_inputs(lines: Sequence[Line], data: DataSet) -> None:
    """Refuses at once what would fail in every row: pictures or language models that are not there."""
    for line in lines:
        options = line.row.recipes[0].dataset.options
        root = getattr(options, "root", None)
        if root is not None and not Path(root).expanduser().is_dir():
            raise UsageError(f"there is no folder {root} with the pictures of {data}; name it: --root DIR")
    if missing := sorted({name for line in lines if (name := _model(line)) and not _is_at_hand(name)}):
        raise UsageError(
            f"the weights of {', '.join(missing)} are neither here nor to be had from the model hub; download them, or "
            "name a folder: --set backbone.model=DIR"
        )


def _model(line: Line) -> str | None:
    recipe = line.row.recipes[0]
    named = recipe.retriever == "generative" and recipe.backbone is not None
    return getattr(recipe.backbone.options, "model", None) if named and recipe.backbone else None


def _is_at_hand(model: str) -> bool:
    if ":" in model or Path(model).expanduser().exists():
        return True
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(model, "config.json")
    except Exception:  # no network, no such model, no permission: the sentence is the same
        return False
    return True


# ------------------------------------------------------------------------------------------------ what is seen
def signs(table: PaperTable, data: DataSet, lines: Sequence[Line], results: Sequence[RowResult]) -> list[Sign]:
    """The paper's differences between rows, each with ours and whether it is more than luck."""
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
            by_measure = {test.measure: test for test in tests}  # empty where figures cannot exist
            for k, left, right in zip(CUTOFFS, paper_a, paper_b, strict=True):
                test = by_measure.get(f"recall@{k}")
                if test is not None and left is not None and right is not None:
                    delta = round(left - right, 2)
                    verdict = _verdict(delta, test)
                    sign = (a.of.name, b.of.name, f"R@{k}", delta, test.difference, test.p, verdict)
                    found.append(Sign(protocol, *sign))
    return found


def _verdict(paper: float, test: PairedTest) -> str:
    lucky = test.p >= LEVEL
    if abs(paper) < ALIKE:
        return "alike, as in the paper" if lucky else "not alike here"
    if test.difference * paper > 0:
        return "seen" if not lucky else "seen, but within luck"
    return "not seen" if lucky else "reversed"


# ------------------------------------------------------------------------------------------------ the table
def as_json(
    table: PaperTable, data: DataSet, lines: Sequence[Line], results: Sequence[RowResult], found: Sequence[Sign]
) -> dict[str, Any]:
    source = reported_on(data, table)
    rows = [
        {
            "name": line.of.name,
            "protocol": line.protocol,
            "data": name_of(line.row.recipes[0].dataset),
            "encoder": name_of(line.row.recipes[0].encoder),
            **result.as_json(),
            "paper": _by_cutoff(line.of.paper.get(source)),
            "note": line.of.note,
        }
        for line, result in zip(lines, results, strict=True)
    ]
    return {
        "title": table.title,
        "on": data,
        "split": "test",
        "paper_data": REPORTED_ON[source],
        "rows": rows,
        "signs": [sign._asdict() for sign in found],
    }


def text_table(table: PaperTable, data: DataSet, lines: Sequence[Line], results: Sequence[RowResult]) -> TextTable:
    source = reported_on(data, table)
    rows, remarks = [], dict[str, None]()
    for line, result in zip(lines, results, strict=True):
        first = result.outcomes[0] if result.outcomes else None
        dense = two_tower(result.outcomes)
        paper = line.of.paper.get(source)
        rows.append(
            [
                line.of.name,
                line.protocol,
                ",".join(str(one.recipe.train.seed) for one in result.outcomes) or "–",
                str((first and first.num_beams) or "–"),
                *(_ours(result, f"recall@{k}") for k in CUTOFFS),
                *_theirs(paper),
                "–" if dense is None else " / ".join(f"{value:.1f}" for value in dense.values() if value is not None),
            ]
        )
        for words in (result.remark, line.of.note):
            if words:
                remarks[f"{line.of.name}: {words}"] = None
    headings = ["", "protocol", "seeds", "beams", *(f"R@{k}" for k in CUTOFFS), *(f"paper R@{k}" for k in CUTOFFS)]
    encoders = dict.fromkeys(name_of(line.row.recipes[0].encoder) for line in lines)
    notes = [
        f"Ours: {name_of(lines[0].row.recipes[0].dataset)}, split 'test', encoder {'; '.join(encoders)}; recall in %, "
        "mean ± standard deviation over seeds; two-tower: recall@1 / 5 / 10 of the same encoder's dense search.",
        f"The paper's (arXiv 2407.17274): {REPORTED_ON[source]}.",
        *remarks,
    ]
    return TextTable(f"{table.title}, on {data}", [*headings, "two-tower"], rows, 3, notes)


def signs_text(found: Sequence[Sign]) -> str:
    """A line for each pair of rows; empty if there is none."""
    pairs: dict[tuple[str, str, str], list[Sign]] = {}
    for sign in found:
        pairs.setdefault((sign.protocol, sign.row, sign.against), []).append(sign)
    return "\n".join(_pair_lines(pairs))


def _pair_lines(pairs: dict[tuple[str, str, str], list[Sign]]) -> Iterator[str]:
    if pairs:
        yield "The paper's differences, here (Fisher's randomization test over queries, two-sided):"
    for (protocol, row, against), parts in pairs.items():
        yield f"- {row} against {against}, {protocol}: {'; '.join(sign.text() for sign in parts)}"


def _ours(result: RowResult, measure: str) -> str:
    figure = result.figures.get(measure)
    if figure is None:
        return "n/a" if result.row.left_out or any(one.found is None for one in result.outcomes) else "–"
    return text_of(figure, measure)


def _theirs(figures: Sequence[float | None] | None) -> list[str]:
    return [
        "–" if value is None else f"{value:.{1 if value >= 1 else 2}f}" for value in figures or [None] * len(CUTOFFS)
    ]


def _by_cutoff(figures: Sequence[float | None] | None) -> dict[str, float | None] | None:
    return None if figures is None else {str(k): value for k, value in zip(CUTOFFS, figures, strict=True)}
