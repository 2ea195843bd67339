"""`genret reproduce`: the runs of a table or figure of the paper, as rows of a sweep.

Rows that several tables share (AVG itself) are one run, because runs are found by their recipes. `shown.py` makes the
output.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from genret.errors import RecipeError, UsageError
from genret.lab.paper.paper import DATA, PLAIN, DataSet, PaperRow, PaperTable
from genret.lab.sweep.grid import override, slug
from genret.lab.sweep.grid_sweep import seeded
from genret.lab.sweep.sweep import SweepRow
from genret.plugin.registry import Registries
from genret.recipe.compatibility import chance_level
from genret.recipe.plain_yaml import parse
from genret.recipe.schema import Recipe

OVERLAYS: dict[DataSet, list[str]] = {
    "emoji": [],
    "flickr8k": ["scale/flickr8k.yaml"],
    "flickr30k": ["scale/flickr30k.yaml"],
    "coco": ["scale/coco.yaml"],
}
"""Recipe overlay for each data set; recipes use emoji by default."""


class Line(NamedTuple):
    """One row of the table."""

    of: PaperRow
    protocol: str
    row: SweepRow


def lines_of(
    table: PaperTable,
    data: DataSet,
    recipes: Path,
    overrides: Sequence[str],
    seeds: int | None,
    registries: Registries,
) -> list[Line]:
    """Every row of the table as validated runs; `overrides` are applied last."""
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
            words = [*laid, *PLAIN.get(data, []), *table.on.get(data, []), *row.set, *chosen, *overrides]
            try:
                found = seeded(names, words, seeds, registries)
            except RecipeError as error:
                faults |= {f"{row.name}: {fault}": None for fault in error.errors}
            else:
                label = slug(f"{row.name}_{found[0].protocol}")
                left_out = chance_level(found[0], registries)  # no training needed: the result is known
                lines.append(Line(row, found[0].protocol, SweepRow(label, found, row.beams, left_out)))
    if faults:
        raise RecipeError(faults)
    return lines


def _without(file: Path, own: Sequence[str]) -> list[str]:
    """A recipe file without some keys, as overrides, which are merged by the same rule."""
    found = parse(file.read_text(encoding="utf-8")).value
    return [override(key, value) for key, value in found.items() if key not in own]


def find_recipes(given: Path | None) -> Path:
    """The folder of recipes: the given one, otherwise the working directory's, otherwise that of genret's clone."""
    clone = Path(__file__).parents[3] / "recipes"
    for folder in [given] if given else [Path("recipes"), clone]:
        if (folder / "avg.yaml").is_file():
            return folder
    where = f"{given} holds no avg.yaml" if given else "there is no folder recipes/ here"
    raise UsageError(f"{where}; name the folder of genret's recipes: --recipes DIR (it is in genret's repository)")


def with_inputs(lines: Sequence[Line], data: DataSet) -> list[Line]:
    """Fails early on missing images or models. Optional rows are skipped, with the reason."""
    for line in lines:
        options = line.row.recipes[0].dataset.options
        root = getattr(options, "root", None)
        if root is not None and not Path(root).expanduser().is_dir():
            raise UsageError(f"there is no folder {root} with the pictures of {data}; name it: --root DIR")
    there = {name: _is_at_hand(name) for name in dict.fromkeys(n for one in lines for n in _models(one.row.recipes[0]))}
    missing = {name for one in lines if not one.of.optional for name in _models(one.row.recipes[0]) if not there[name]}
    if missing:
        raise UsageError(
            f"the weights of {', '.join(sorted(missing))} are neither here nor to be had from the model hub; download "
            "them, or name a folder: --set backbone.model=DIR"
        )
    settled = []
    for line in lines:
        lacking = [name for name in _models(line.row.recipes[0]) if not there[name]]
        reason = f"not run: the weights of {', '.join(lacking)} are neither here nor to be had from the model hub"
        settled.append(line._replace(row=line.row._replace(left_out=reason)) if lacking else line)
    return settled


def _models(recipe: Recipe) -> list[str]:
    """Names of the pretrained models that a row needs besides its encoder."""
    slots = [recipe.backbone if recipe.has_identifiers else None, recipe.rerank]
    names = (getattr(slot.options, "model", None) for slot in slots if slot is not None)
    return [name for name in names if name]


def _is_at_hand(model: str) -> bool:
    if ":" in model or Path(model).expanduser().exists():
        return True
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(model, "config.json")
    except Exception:  # no network, no such model or no permission: the same message
        return False
    return True
