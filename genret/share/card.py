"""The model card of a run: what it is, on which data, under which protocol, and how well it finds. Measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import genret
from genret.evaluate.metrics import CUTOFFS
from genret.kit.files import read_json, write_text
from genret.lab.compare.run_summary import name_of
from genret.recipe import plain_yaml
from genret.recipe.schema import Recipe
from genret.run import Run
from genret.share.catalog import portable
from genret.share.contents import CARD, PICTURE
from genret.share.picture import contact_sheet, recall_bars
from genret.share.shown import sheet_rows

SHOWN_QUERIES = 4
SHOWN_HITS = 6
PROTOCOLS = {
    "inductive": "training knew nothing of the searched images",
    "transductive-index": "the searched images' pixels, but no words about them, could train the tokenizer",
    "transductive-pseudo": "the searched images' pixels and made-up captions of them were trained on",
}
WAYS = {
    "recall": "this run",
    "two_tower": "two-tower search with the same vectors",
    "ceiling": "ceiling of the identifiers",
    "reranked": "the beams' images in dense order",
}


class Licences(NamedTuple):
    """As SPDX or the hub spells them; None: the card says that they are not stated."""

    model: str | None = None
    data: str | None = None
    weights: str | None = None


def write_card(run: Run, folder: Path, licences: Licences, images: int | None, thumbnails: bool) -> None:
    """Writes `README.md` and `results.png` into a bundle."""
    figures = run.figures or {}
    shown = {said: figures[way] for way, said in WAYS.items() if isinstance(figures.get(way), dict)}
    with_pictures = thumbnails and bool(images) and _draw_searches(run, folder / PICTURE)
    if not with_pictures and shown:
        recall_bars(dict(list(shown.items())[:2])).save(folder / PICTURE)
    metadata = plain_yaml.dump(_metadata(run, licences, figures))
    body = "\n".join(_body(run, licences, shown, images, (folder / PICTURE).exists(), with_pictures))
    write_text(folder / CARD, f"---\n{metadata}---\n{body}\n")


def public_weights(recipe: Recipe) -> list[tuple[str, str | None]]:
    """The pretrained weights that the recipe names in public, each with its revision."""

    def found(value: Any) -> Iterator[tuple[str, str | None]]:
        if isinstance(value, dict):
            for key in ("model", "pretrained", "weights", "encoder"):
                names = value.get(key)
                for name in names if isinstance(names, list) else [names]:
                    if isinstance(name, str) and not name.startswith(("/", "~", ".")) and not Path(name).exists():
                        yield name, value.get("revision")
            for inner in value.values():
                yield from found(inner)

    plain = recipe.canonical()
    return list(dict.fromkeys(pair for slot in ("encoder", "backbone", "rerank") for pair in found(plain[slot])))


def _metadata(run: Run, licences: Licences, figures: Mapping[str, Any]) -> dict[str, Any]:
    recipe = run.recipe
    parts = [recipe.encoder, recipe.identifier, recipe.backbone]
    told: dict[str, Any] = {
        "license": licences.model or "unknown",
        "library_name": "genret",
        "tags": ["genret", "text-to-image-retrieval", recipe.retriever.type]
        + [
            f"{kind}:{slot.type}"
            for kind, slot in zip(("encoder", "identifier", "backbone"), parts, strict=True)
            if slot
        ],
    }
    if on_hub := [name for name, _ in public_weights(recipe) if name.count("/") == 1 and ":" not in name]:
        told["base_model"] = on_hub
    if recall := figures.get("recall"):
        metrics = [
            {"type": f"recall_at_{k}{suffix}", "value": round(float(values[k]), 2), "name": f"R@{k}, {said}"}
            for values, suffix, said in (
                (recall, "", "this run"),
                (figures["two_tower"], "_two_tower", WAYS["two_tower"]),
            )
            for k in map(str, CUTOFFS)
            if values.get(k) is not None
        ]
        data = _data_name(run)
        result = {
            "task": {"type": "text-to-image-retrieval", "name": f"Text-to-image retrieval, {recipe.protocol}"},
            "dataset": {"type": data, "name": data, "split": figures["split"]},
            "metrics": metrics,
        }
        if metrics:
            told["model-index"] = [{"name": run.folder.resolve().name, "results": [result]}]
    return told


def _data_name(run: Run) -> str:
    return portable(name_of(run.recipe.dataset)).removeprefix(f"{run.recipe.dataset.type} ") or run.recipe.dataset.type


def _body(
    run: Run, licences: Licences, shown: Mapping[str, Any], images: int | None, pictured: bool, searches: bool
) -> Iterator[str]:
    recipe, figures, name = run.recipe, run.figures or {}, run.folder.resolve().name
    yield f"\n# {name}\n"
    yield f"A run of [genret](https://arxiv.org/abs/2407.17274) {genret.__version__} that finds images by words.\n"
    if pictured:
        said = "Searches, and the images found first" if searches else "Recall of this run beside the two-tower search"
        yield f"![{said}]({PICTURE})\n"
    yield "```python"
    yield "import genret\n"
    yield f'run = genret.load("hub:OWNER/{name}")   # or: genret pull SOURCE'
    yield 'print(run.search("red heart", k=5).hits)'
    yield "```\n"
    yield "| | |\n|---|---|"
    facts = {
        "data": f"{_data_name(run)} ({recipe.dataset.type})",
        "protocol": f"{recipe.protocol}: {PROTOCOLS.get(recipe.protocol, 'see its plugin')}",
        "retriever": recipe.retriever.type,
        "encoder": name_of(recipe.encoder),
        "identifier": name_of(recipe.identifier),
        "language model": name_of(recipe.backbone),
        "reranker": name_of(recipe.rerank),
        "seed": recipe.train.seed,
        "catalog": "not in this bundle: add images with `genret index`" if images is None else f"{images:,} images",
    }
    for key, value in facts.items():
        yield f"| {key} | {_cell(value)} |"
    if named := public_weights(recipe):
        yield "\nPretrained weights that are fetched by name: " + ", ".join(
            f"`{weights}`" + (f" at revision `{revision}`" if revision else "") for weights, revision in named
        )
    yield "\n## Figures\n"
    if not shown:
        yield "Not measured."
    else:
        yield (
            f"{figures['num_queries']:,} queries over {figures['num_images']:,} images, split `{figures['split']}`"
            + (f", {figures['num_beams']} beams" if figures.get("num_beams") else "")
            + f"; recall in percent. Made on {_machine(run)}.\n"
        )
        yield "| | " + " | ".join(f"R@{k}" for k in CUTOFFS) + " |\n|---|" + "---|" * len(CUTOFFS)
        for said, recalls in shown.items():
            cells = (recalls.get(str(k)) for k in CUTOFFS)
            yield f"| {said} | " + " | ".join("–" if value is None else f"{value:.1f}" for value in cells) + " |"
        if figures.get("remark"):
            yield f"\n{_cell(figures['remark'])}"
    yield "\n## Licences\n"
    yield "| | |\n|---|---|"
    for key, value in zip(("this model", "training data", "pretrained weights"), licences, strict=True):
        yield f"| {key} | {_cell(value or 'not stated by who pushed it')} |"


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def _machine(run: Run) -> str:
    try:
        facts = read_json(run.folder / "environment.json")
        return _cell(f"{facts['cores']} cores of {facts['processor']}, device {facts['device']}")
    except (OSError, ValueError, KeyError, TypeError):
        return "a machine that is not recorded"


def _draw_searches(run: Run, file: Path) -> bool:
    """A contact sheet of the split's first captions; False where there are none."""
    catalog = run.retriever.catalog
    rows = catalog.captions(run.dataset.test_split)
    queries = list(dict.fromkeys(rows.texts[:: max(1, len(rows.texts) // SHOWN_QUERIES)]))[:SHOWN_QUERIES]
    if not queries:
        return False
    contact_sheet(sheet_rows(run, run.search(queries, SHOWN_HITS))).save(file)
    return True
