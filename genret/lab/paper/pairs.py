"""The paper's Figure 5: pairs of images with their vokens, chosen by a rule.

For every number of shared vokens, the pair of median similarity among neighbours in the order of identifiers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from genret.catalog.place import place_of
from genret.catalog.store import Catalog
from genret.lab.compare.run_summary import name_of
from genret.lab.paper.paper import PaperTable
from genret.lab.paper.reproduce import Line
from genret.lab.sweep.sweep import RowResult
from genret.plugin.registry import Registries
from genret.recipe.components import components
from genret.shell.migrate import upgrade
from genret.toolbox.text_table import TextTable


class PrefixPairs(NamedTuple):
    run: Path | None
    levels: int
    pairs: list[dict[str, Any]]
    """One for each number of shared vokens"""


def pairs_of(line: Line, result: RowResult, registries: Registries) -> PrefixPairs:
    """From the first finished run; empty without one."""
    from genret.lab.report.vokens import named_images, nearest_captions, shared_prefixes

    if not result.outcomes:
        return PrefixPairs(None, 0, [])
    run = result.outcomes[0].run
    split = components(line.row.recipes[0], registries).dataset.test_split
    with Catalog.open(place_of(run), upgrade=upgrade) as catalog:
        images = named_images(catalog, split)
    if images is None:
        return PrefixPairs(run, 0, [])
    found = []
    for one in shared_prefixes(images):
        rows = [images.rows[place] for place in (one.first, one.second)]
        captions, common = nearest_captions(*(images.captions.get(row.key, []) for row in rows))
        found.append(
            {
                "shared": one.length,
                "num_pairs": one.num_pairs,
                "mean_similarity": round(one.similarity, 4),
                "similarity": round(one.pair_similarity, 4),
                "images": [
                    {
                        "image_id": row.image_id,
                        "uri": row.uri,
                        "vokens": images.names(place),
                        "caption": told or None,
                    }
                    for row, place, told in zip(rows, (one.first, one.second), captions, strict=True)
                ],
                "common_words": sorted(common),
            }
        )
    return PrefixPairs(run, int(images.codes.shape[1]), found)


def as_json(table: PaperTable, data: str, line: Line, result: RowResult, found: PrefixPairs) -> dict[str, Any]:
    return {
        "title": table.title,
        "on": data,
        "split": "test",
        "protocol": line.protocol,
        "encoder": name_of(line.row.recipes[0].encoder),
        "run": None if found.run is None else str(found.run),
        "num_levels": found.levels,
        "pairs": found.pairs,
        "paper": [case.model_dump() for case in table.cases],
        "remark": result.remark,
    }


def text_table(table: PaperTable, data: str, line: Line, found: PrefixPairs) -> TextTable:
    rows = []
    for pair in found.pairs:
        first, second = pair["images"]
        vokens = " ".join(first["vokens"]), " ".join(second["vokens"])
        told = [" / ".join(filter(None, (one["caption"], one["image_id"]))) for one in (first, second)]
        similarity = f"{pair['similarity']:.2f}", f"{pair['mean_similarity']:.2f}"
        rows.append([str(pair["shared"]), *vokens, *told, *similarity, f"{pair['num_pairs']:,}"])
    headings = ["shared", "vokens", "vokens", "first", "second", "similarity", "mean", "pairs"]
    notes = [
        f"Ours: {name_of(line.row.recipes[0].dataset)}, split 'test', {line.protocol}, encoder "
        f"{name_of(line.row.recipes[0].encoder)}; of neighbours in the order of identifiers, for each number of shared "
        "vokens, the pair of median similarity (cosine of the encoder's vectors) and the mean over all such pairs.",
        *(f"The paper: {case.about}." for case in table.cases),
    ]
    return TextTable(f"{table.title}, on {data}", headings, rows, 5, notes)
